// SPDX-License-Identifier: Apache-2.0
// The kernel list as Python sees it, and a way to run one kernel alone on NumPy arrays: for tests and
// benchmarks, driven by the same schema as plans.
#include <cstring>

#include "bindings/register.h"
#include "cpu/fp_mode.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

const char* name_of(FieldKind kind) {
  constexpr const char* kNames[] = {"In",       "InOpt", "Out", "OutOpt", "InOut",
                                    "InOutOpt", "Dim",   "Int", "Real"};
  return kNames[static_cast<int>(kind)];
}

const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"real", "index", "double", "int64"};
  return kNames[static_cast<int>(dtype)];
}

py::dict kernels() {
  py::dict all;
  for (int k = 0; k < kNumKernels; ++k) {
    const KernelInfo& info = kernel_info(static_cast<Kernel>(k));
    py::list fields;
    for (const Field& f : info.fields)
      fields.append(
          py::make_tuple(std::string(f.name), name_of(f.kind), is_operand(f.kind) ? name_of(f.dtype) : ""));
    all[py::str(std::string(info.name))] = fields;
  }
  return all;
}

bool holds(const py::array& array, DType dtype, bool is_double) {
  switch (dtype) {
    case DType::kReal:
      return is_double ? py::isinstance<py::array_t<double>>(array)
                       : py::isinstance<py::array_t<float>>(array);
    case DType::kIndex:
      return py::isinstance<py::array_t<std::int32_t>>(array);
    case DType::kDouble:
      return py::isinstance<py::array_t<double>>(array);
    case DType::kInt64:
      return py::isinstance<py::array_t<std::int64_t>>(array);
  }
  return false;
}

// float64 if any real operand is.
bool uses_double(const KernelInfo& info, const py::dict& fields) {
  for (const Field& f : info.fields) {
    if (!is_operand(f.kind) || f.dtype != DType::kReal || !fields.contains(py::str(std::string(f.name))))
      continue;
    const py::object value = fields[py::str(std::string(f.name))];
    if (!value.is_none()) return py::isinstance<py::array_t<double>>(value);
  }
  return false;
}

void bind_field(std::byte* args, const Field& f, const py::object& value, bool is_double) {
  const auto put = [&](auto v) { std::memcpy(args + f.offset, &v, sizeof v); };
  if (f.kind == FieldKind::Dim || f.kind == FieldKind::Int) return put(value.cast<int64>());
  if (f.kind == FieldKind::Real) return put(value.cast<double>());
  if (value.is_none()) return put(static_cast<const void*>(nullptr));
  const py::array array = value.cast<py::array>();
  const bool written = f.kind != FieldKind::In && f.kind != FieldKind::InOpt;
  if (!holds(array, f.dtype, is_double))
    throw py::type_error("[run_kernel] operand " + std::string(f.name) + " has dtype " +
                         py::str(array.dtype()).cast<std::string>());
  if (written && !array.writeable())
    throw py::value_error("[run_kernel] output " + std::string(f.name) + " is read-only");
  put(array.data());
}

void run_kernel(const std::string& name, const py::dict& fields, const std::string& isa, std::uint64_t seed,
                std::uint32_t run, std::uint64_t step, const std::vector<double>& groups,
                const std::vector<double>& dropout, int64 first_row, bool first, bool last, bool reverse,
                bool whole) {
  const int kernel = find_kernel(name);
  if (kernel < 0) throw py::key_error("[run_kernel] no kernel " + name);
  const KernelInfo& info = kernel_info(static_cast<Kernel>(kernel));
  const bool is_double = uses_double(info, fields);
  const IsaUnit& unit = find_isa(is_double && isa.empty() ? "generic" : isa);
  const KernelTable* table = is_double ? unit.table_double : unit.table_float;
  if (table == nullptr) throw py::value_error("[run_kernel] no float64 in unit " + std::string(unit.name));
  if (fields.size() != info.fields.size())
    throw py::value_error("[run_kernel] wrong number of fields for " + name);
  alignas(8) std::byte args[kMaxArgsBytes] = {};
  for (const Field& f : info.fields) bind_field(args, f, fields[py::str(std::string(f.name))], is_double);

  const StepContext ctx{seed, run, step, groups.data(), dropout.data(), first_row, first, last};
  const KernelFn fn = (*table)[kernel];
  const FlushDenormals flush;
  if (whole) return fn.run_all(args, ctx);
  const int64 chunks = fn.chunks(args);
  for (int64 i = 0; i < chunks; ++i) fn.run(args, ctx, reverse ? chunks - 1 - i : i);
}

}  // namespace

void register_kernels(py::module_& m) {
  m.def("kernels", &kernels,
        "Every kernel: name -> [(field, kind, element type)], in the order of the list.");
  m.def("activation_index", &activation_index, py::arg("name"),
        "Number of an element-wise function as matmul's activation; -1 if there is none.");
  m.def(
      "run_kernel", &run_kernel, py::arg("name"), py::arg("fields"), py::kw_only(), py::arg("isa") = "",
      py::arg("seed") = 0, py::arg("run") = 0, py::arg("step") = 0, py::arg("groups") = std::vector<double>(),
      py::arg("dropout") = std::vector<double>(), py::arg("first_row") = 0, py::arg("first") = true,
      py::arg("last") = true, py::arg("reverse") = false, py::arg("whole") = false,
      "Run one kernel on dense arrays, chunk by chunk or `whole`, as one thread alone does. For tests: sizes "
      "are not checked against the arrays.");
}

}  // namespace hotloop
