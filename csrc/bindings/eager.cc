// SPDX-License-Identifier: Apache-2.0
// One kernel of the list on the caller's own arrays: what hotloop.ops is made of. The fields come in the
// order of the kernel's schema, so that a call costs no look-up by name. Python has checked shapes and
// strides against the arrays; types and write access are looked at again here, because they cost nothing.
#include <cstring>

#include "bindings/operand.h"
#include "kernels/isa.h"
#include "runtime/team_calls.h"

namespace hotloop {
namespace {

int type_num(DType dtype, bool is_double) {
  switch (dtype) {
    case DType::kReal:
      return is_double ? py::detail::npy_api::NPY_DOUBLE_ : py::detail::npy_api::NPY_FLOAT_;
    case DType::kIndex:
      return py::dtype::of<std::int32_t>().num();
    case DType::kDouble:
      return py::detail::npy_api::NPY_DOUBLE_;
    case DType::kInt64:
      return py::dtype::of<std::int64_t>().num();
  }
  return -1;
}

class EagerKernel {
 public:
  EagerKernel(const std::string& name, const std::string& dtype, const std::string& isa)
      : is_double_(real_of(dtype) == Real::kFloat64) {
    const int kernel = find_kernel(name);
    if (kernel < 0) throw py::key_error("[eager] no kernel " + name);
    info_ = &kernel_info(static_cast<Kernel>(kernel));
    const IsaUnit& unit = find_isa(is_double_ ? "generic" : isa);
    const KernelTable* table = is_double_ ? unit.table_double : unit.table_float;
    fn_ = (*table)[kernel];
  }

  // `fields` in the order of the schema. The kernel runs `items` times; from one item to the next, operand f
  // moves on by steps[f] elements. Chunks of all items are shared by the team (None: this thread alone),
  // where that is faster.
  void call(const py::tuple& fields, ThreadTeam* team, int64 items, const std::vector<int64>& steps,
            std::uint64_t seed, std::uint64_t step, const std::vector<double>& groups,
            const std::vector<double>& dropout) const {
    const std::size_t count = info_->fields.size();
    if (fields.size() != count || (!steps.empty() && steps.size() != count))
      throw py::value_error("[eager] wrong number of fields for " + std::string(info_->name));
    alignas(8) std::byte args[kMaxArgsBytes] = {};
    for (std::size_t i = 0; i < count; ++i) bind(args, info_->fields[i], fields[i]);
    const StepContext ctx{seed, 0, step, groups.data(), dropout.data(), 0};

    const py::gil_scoped_release release;  // `fields` holds the arrays
    const int64 chunks = team == nullptr ? 0 : fn_.chunks(args);
    const auto work = [&](int64 task) {
      if (items == 1) return fn_.run(args, ctx, task);
      alignas(8) std::byte own[kMaxArgsBytes];
      std::memcpy(own, args, sizeof own);
      move_on(own, task / chunks, steps);
      fn_.run(own, ctx, task % chunks);
    };
    TeamCalls::here().run(team, this, items * chunks, items * chunks, work,
                          [&] { run_alone(args, ctx, items, steps); });
  }

 private:
  void bind(std::byte* args, const Field& field, py::handle value) const {
    const auto put = [&](auto v) { std::memcpy(args + field.offset, &v, sizeof v); };
    if (field.kind == FieldKind::Real) return put(value.cast<double>());
    if (!is_operand(field.kind)) return put(value.cast<int64>());
    if (value.is_none()) return put(static_cast<const void*>(nullptr));
    if (!py::isinstance<py::array>(value)) return put(tensor_data(field, value));
    const py::array array = py::reinterpret_borrow<py::array>(value);
    if (array.dtype().num() != type_num(field.dtype, is_double_))
      throw py::type_error("[eager] operand " + std::string(field.name) + " has dtype " +
                           py::str(array.dtype()).cast<std::string>());
    if (is_written(field.kind) && !array.writeable())
      throw py::value_error("[eager] output " + std::string(field.name) + " is read-only");
    put(array.data());
  }

  // The memory of a tensor of a known type; who passes one has made sure of its layout.
  void* tensor_data(const Field& field, py::handle value) const {
    const std::optional<Operand> found = read_operand(value);
    const bool wide = is_double_ || field.dtype == DType::kDouble;
    const Element real = wide ? Element::kDouble : Element::kFloat;
    const Element wanted = field.dtype == DType::kIndex   ? Element::kInt32
                           : field.dtype == DType::kInt64 ? Element::kInt64
                                                          : real;
    if (!found || found->element != wanted)
      throw py::type_error("[eager] operand " + std::string(field.name) + " is no array of that dtype");
    return found->data;
  }

  void run_alone(std::byte* args, const StepContext& ctx, int64 items,
                 const std::vector<int64>& steps) const {
    for (int64 item = 0; item < items; ++item) {
      fn_.run_all(args, ctx);
      move_on(args, 1, steps);
    }
  }

  void move_on(std::byte* args, int64 item, const std::vector<int64>& steps) const {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Field& field = info_->fields[i];
      if (!is_operand(field.kind) || steps[i] == 0) continue;
      const std::byte* pointer = nullptr;
      std::memcpy(&pointer, args + field.offset, sizeof pointer);
      if (pointer == nullptr) continue;
      pointer += item * steps[i] * static_cast<int64>(dtype_bytes(field.dtype, real()));
      std::memcpy(args + field.offset, &pointer, sizeof pointer);
    }
  }

  Real real() const { return is_double_ ? Real::kFloat64 : Real::kFloat32; }

  const KernelInfo* info_ = nullptr;
  KernelFn fn_;
  bool is_double_;
};

}  // namespace

void register_eager(py::module_& m) {
  py::class_<EagerKernel>(m, "EagerKernel", "A kernel that runs on arrays, outside any plan.")
      .def(py::init<const std::string&, const std::string&, const std::string&>(), py::arg("name"),
           py::arg("dtype") = "float32", py::arg("isa") = "")
      .def("__call__", &EagerKernel::call, py::arg("fields"), py::arg("team") = nullptr, py::arg("items") = 1,
           py::arg("steps") = std::vector<int64>(), py::arg("seed") = 0, py::arg("step") = 0,
           py::arg("groups") = std::vector<double>(), py::arg("dropout") = std::vector<double>());
}

}  // namespace hotloop
