// SPDX-License-Identifier: Apache-2.0
// Programs on a device as Python sees them: single steps, with the GIL released.
#include "bindings/register.h"
#include "core/error.h"
#include "runtime/device_program.h"

namespace hotloop {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style>;

py::dtype dtype_of(DType dtype) {
  switch (dtype) {
    case DType::kReal:
      return py::dtype::of<float>();
    case DType::kIndex:
      return py::dtype::of<index>();
    case DType::kDouble:
      return py::dtype::of<double>();
    case DType::kInt64:
      return py::dtype::of<int64>();
  }
  throw InternalError("[program] unknown element type");
}

const Buffer& buffer_at(const DeviceProgram& program, int buffer) {
  const Plan& plan = program.plan();
  check(buffer >= 0 && buffer < static_cast<int>(plan.buffers.size()), "[program] no buffer ", buffer);
  return plan.buffers[static_cast<std::size_t>(buffer)];
}

void put(DeviceProgram& program, int buffer, const py::array& array) {
  const Buffer& b = buffer_at(program, buffer);
  const py::dtype dtype = dtype_of(b.dtype);
  check((array.flags() & py::array::c_style) != 0 && array.dtype().kind() == dtype.kind() &&
            array.itemsize() == dtype.itemsize(),
        "[program] buffer ", buffer, " takes a dense array of ", py::str(dtype).cast<std::string>());
  check(array.size() <= b.size.at(program.plan().max_rows), "[program] ", array.size(),
        " elements for buffer ", buffer, " of ", b.size.at(program.plan().max_rows));
  const auto* data = static_cast<const std::byte*>(array.data());
  const auto bytes = static_cast<std::size_t>(array.nbytes());
  const py::gil_scoped_release release;  // the argument is held by the caller
  program.put(buffer, data, bytes);
}

py::array get(const DeviceProgram& program, int buffer, int64 rows) {
  const Buffer& b = buffer_at(program, buffer);
  check(rows >= 0 && rows <= program.plan().max_rows, "[program] ", rows, " rows of at most ",
        program.plan().max_rows);
  py::array out(dtype_of(b.dtype), std::vector<py::ssize_t>{b.size.at(rows)});
  auto* data = static_cast<std::byte*>(out.mutable_data());
  const auto bytes = static_cast<std::size_t>(out.nbytes());
  {
    const py::gil_scoped_release release;  // nobody else has the new array
    program.get(buffer, data, bytes);
  }
  return out;
}

void put_from(DeviceProgram& program, int buffer, std::uintptr_t from, int64 elements) {
  const Buffer& b = buffer_at(program, buffer);
  check(elements >= 0 && elements <= b.size.at(program.plan().max_rows), "[program] ", elements,
        " elements for buffer ", buffer, " of ", b.size.at(program.plan().max_rows));
  program.put_from(buffer, reinterpret_cast<const std::byte*>(from),
                   static_cast<std::size_t>(elements) * dtype_bytes(b.dtype, program.plan().real));
}

void get_to(const DeviceProgram& program, int buffer, int64 rows, std::uintptr_t out) {
  const Buffer& b = buffer_at(program, buffer);
  check(rows >= 0 && rows <= program.plan().max_rows, "[program] ", rows, " rows of at most ",
        program.plan().max_rows);
  const py::gil_scoped_release release;  // the caller holds the memory
  program.get_to(buffer, reinterpret_cast<std::byte*>(out),
                 static_cast<std::size_t>(b.size.at(rows)) * dtype_bytes(b.dtype, program.plan().real));
}

void run(DeviceProgram& program, int64 rows, int64 begin, int64 end, std::uint64_t seed, std::uint32_t number,
         std::uint64_t step, const DoubleArray& params, bool first, bool last, int64 times) {
  check(params.size() == program.plan().params_width(), "[program] ", params.size(), " step parameters, not ",
        program.plan().params_width());
  DeviceStep like;
  like.seed = seed;
  like.run = number;
  like.step = step;
  like.first = first;
  like.last = last;
  if (end < 0) end = static_cast<int64>(program.plan().steps.size());
  const double* values = params.data();
  const py::gil_scoped_release release;  // the step touches native memory only
  program.run(rows, begin, end, like, values, times);
}

std::vector<std::vector<std::size_t>> order(DeviceProgram& program, int64 rows, int64 batches) {
  check(rows >= 1 && rows <= program.plan().max_rows && batches >= 1, "[program] ", batches, " batches of ",
        rows, " rows");
  const std::pair<int64, int64> all{0, static_cast<int64>(program.plan().steps.size())};
  const std::vector<std::pair<int64, int64>> each(static_cast<std::size_t>(batches), all);
  return program.order({rows, batches > 1, {}, each});
}

std::vector<std::pair<int64, int64>> calls(DeviceProgram& program, int64 rows) {
  check(rows >= 1 && rows <= program.plan().max_rows, "[program] launches of ", rows, " rows");
  std::vector<std::pair<int64, int64>> found;
  for (const DeviceCall& call : program.calls(rows, 0, static_cast<int64>(program.plan().steps.size())))
    found.emplace_back(call.begin, call.end);
  return found;
}

}  // namespace

void register_gpu_program(py::module_& m) {
  py::class_<DeviceProgram>(m, "DeviceProgram",
                            "A plan bound to a session's memory on a device and an arena of its own.")
      .def(py::init([](std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory,
                       const std::shared_ptr<Device>& device, const std::string& precision) {
             const py::gil_scoped_release release;  // copies the session's memory to the device
             return std::make_unique<DeviceProgram>(std::move(plan), std::move(memory), device,
                                                    precision_of(precision));
           }),
           py::arg("plan"), py::arg("memory"), py::arg("device"), py::arg("precision") = "float32")
      .def_property_readonly("isa", &DeviceProgram::isa, "The library and the device: 'cuda sm_90'.")
      .def_property_readonly("nbytes", &DeviceProgram::n_bytes,
                             "Bytes on the device: arena, constants, step parameters and workspaces.")
      .def_property_readonly(
          "metrics",
          [](const py::object& self) {
            DeviceProgram& p = self.cast<DeviceProgram&>();
            return view(p.metrics(), p.plan().metric_doubles, self);
          },
          "The sums and losses, float64, on the host: read at the begin of a run, written at its end.")
      .def_readwrite(
          "batch_seconds", &DeviceProgram::batch_seconds,
          "Seconds that a batch of a pass takes, which settles how many go in one launch; negative "
          "until a pass has measured it.")
      .def("put", &put, py::arg("buffer"), py::arg("array"),
           "Copy a dense array of the buffer's dtype into its first elements.")
      .def("get", &get, py::arg("buffer"), py::arg("rows"),
           "A copy of the elements of a buffer for that many rows, flat.")
      .def("put_from", &put_from, py::arg("buffer"), py::arg("at"), py::arg("elements"),
           "The same from an address on the device, which is held until the next run has ended.")
      .def(
          "wait", [](const DeviceProgram& program) { program.queue().wait(); }, "Wait for what was put.")
      .def("get_to", &get_to, py::arg("buffer"), py::arg("rows"), py::arg("at"),
           "The elements of a buffer for that many rows to an address on the device; waits.")
      .def("run", &run, py::arg("rows"), py::kw_only(), py::arg("begin") = 0, py::arg("end") = -1,
           py::arg("seed") = 0, py::arg("run") = 0, py::arg("step") = 0, py::arg("params"),
           py::arg("first") = true, py::arg("last") = true, py::arg("times") = 1,
           "Run steps [begin, end) on what the input buffers hold, so many times. `first`, `last`: where the "
           "batch stands among those that share an update.")
      .def("calls", &calls, py::arg("rows"),
           "(begin, end) of the steps of each launch; of more than one step where a chain takes them.")
      .def("order", &order, py::arg("rows"), py::kw_only(), py::arg("batches") = 1,
           "For each launch of so many batches, the earlier ones that it waits for; with more than one batch "
           "each begins with a launch that moves the step on. For tests.");
}

}  // namespace hotloop
