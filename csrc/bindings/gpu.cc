// SPDX-License-Identifier: Apache-2.0
// Device libraries and devices as Python sees them, and a way to run one kernel of the list alone on a
// device, on NumPy arrays: for tests and benchmarks.
#include <cstring>

#include "bindings/register.h"
#include "core/error.h"
#include "runtime/device_library.h"

namespace hotloop {
namespace {

using Library = std::shared_ptr<DeviceLibrary>;
using DevicePtr = std::shared_ptr<Device>;

py::dict traits(const Device& device) {
  const DeviceTraits& t = device.traits();
  py::dict found;
  found["name"] = std::string(t.name);
  found["number"] = t.number;
  found["arch"] = t.arch;
  found["multiprocessors"] = t.multiprocessors;
  found["shared_per_block"] = t.shared_per_block;
  found["memory"] = t.memory;
  found["l2"] = t.l2;
  found["has_mma"] = t.has_mma != 0;
  return found;
}

// An operand's copy on the device, with a margin on both sides that nobody may touch.
class Operand {
 public:
  static constexpr std::size_t kMargin = 256;
  static constexpr int kMark = 0xA5;

  // shift: bytes past an aligned address at which it lies, or the next multiple of an element
  Operand(const DevicePtr& device, const DeviceQueue& queue, py::array array, bool written, std::size_t shift)
      : array_(std::move(array)),
        written_(written),
        begin_(kMargin + whole_elements(shift)),
        block_(device, bytes() + begin_ + kMargin) {
    queue.fill(block_.data(), kMark, block_.bytes());
    queue.copy(block_.data() + begin_, array_.data(), bytes(), CopyKind::kToDevice);
  }

  const void* address() const { return block_.data() + begin_; }

  // Copies back what the kernel wrote; whether it kept to its place.
  bool fetch(const DeviceQueue& queue) {
    std::vector<std::byte> found(block_.bytes());
    queue.copy(found.data(), block_.data(), found.size(), CopyKind::kToHost);
    queue.wait();
    if (written_) std::memcpy(array_.mutable_data(), found.data() + begin_, bytes());
    for (std::size_t i = 0; i < kMargin; ++i)
      if (found[i] != std::byte{kMark} || found[found.size() - 1 - i] != std::byte{kMark}) return false;
    return written_ || std::memcmp(array_.data(), found.data() + begin_, bytes()) == 0;
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(array_.nbytes()); }
  std::size_t whole_elements(std::size_t shift) const {
    const auto size = static_cast<std::size_t>(array_.itemsize());
    return (shift + size - 1) / size * size;
  }

  py::array array_;
  bool written_;
  std::size_t begin_;
  DeviceBlock block_;
};

// What a step of the list runs under, on the device.
class StepBlock {
 public:
  StepBlock(const DevicePtr& device, const DeviceQueue& queue, DeviceStep step,
            const std::vector<double>& groups, const std::vector<double>& dropout)
      : numbers_(device, (groups.size() + dropout.size() + 1) * sizeof(double)), step_(device, sizeof step) {
    auto* at = reinterpret_cast<double*>(numbers_.data());
    queue.copy(at, groups.data(), groups.size() * sizeof(double), CopyKind::kToDevice);
    queue.copy(at + groups.size(), dropout.data(), dropout.size() * sizeof(double), CopyKind::kToDevice);
    step.groups = at;
    step.dropout = at + groups.size();
    queue.copy(step_.data(), &step, sizeof step, CopyKind::kToDevice);
    queue.wait();
  }
  const DeviceStep* address() const { return reinterpret_cast<const DeviceStep*>(step_.data()); }

 private:
  DeviceBlock numbers_, step_;
};

// Seconds of one of `times` launches in a row, as the device's clock saw them: one per round. They are a
// graph's, so that what the host needs for a launch does not count.
template <class LaunchOnce>
std::vector<double> timed_launches(const Device& device, const DeviceQueue& queue, const LaunchOnce& launch,
                                   int times, int rounds) {
  const DeviceApi& api = device.api();
  DeviceGraph graph = nullptr;
  DeviceEvent begin = nullptr, end = nullptr;
  device.require(api.capture_begin(queue.stream()), "begin a graph");
  for (int i = 0; i < times; ++i) launch();
  device.require(api.capture_end(queue.stream(), &graph), "make a graph");
  device.require(api.event_create(&begin), "make an event");
  device.require(api.event_create(&end), "make an event");
  std::vector<double> seconds(static_cast<std::size_t>(rounds));
  for (double& of_round : seconds) {
    device.require(api.event_record(begin, queue.stream()), "record an event");
    device.require(api.graph_launch(graph, queue.stream()), "launch a graph");
    device.require(api.event_record(end, queue.stream()), "record an event");
    queue.wait();
    device.require(api.event_seconds(begin, end, &of_round), "ask for the time");
    of_round /= times;
  }
  (void)api.event_release(begin);
  (void)api.event_release(end);
  (void)api.graph_release(graph);
  return seconds;
}

std::vector<double> run_kernel(const DevicePtr& device, const std::string& name, const py::dict& fields,
                               std::uint64_t seed, std::uint32_t run, std::uint64_t step,
                               const std::vector<double>& groups, const std::vector<double>& dropout,
                               bool first, bool last, const std::string& precision, int times,
                               std::size_t shift, int rounds) {
  const int kernel = find_kernel(name);
  if (kernel < 0) throw py::key_error("[run_kernel] no kernel " + name);
  const KernelInfo& info = kernel_info(static_cast<Kernel>(kernel));
  const DeviceQueue queue(device);
  std::vector<std::unique_ptr<Operand>> operands;
  alignas(8) std::byte args[kMaxArgsBytes] = {};
  for (const Field& f : info.fields) {
    const auto put = [&](auto v) { std::memcpy(args + f.offset, &v, sizeof v); };
    const py::object value = fields[py::str(std::string(f.name))];
    if (f.kind == FieldKind::Dim || f.kind == FieldKind::Int) {
      put(value.cast<int64>());
    } else if (f.kind == FieldKind::Real) {
      put(value.cast<double>());
    } else if (!value.is_none()) {
      operands.push_back(std::make_unique<Operand>(device, queue, value.cast<py::array>(),
                                                   f.kind != FieldKind::In && f.kind != FieldKind::InOpt,
                                                   shift));
      put(operands.back()->address());
    }
  }
  DeviceStep ctx;
  ctx.seed = seed;
  ctx.run = run;
  ctx.step = step;
  ctx.first = first;
  ctx.last = last;
  const StepBlock block(device, queue, ctx, groups, dropout);
  const DeviceKernel& entry = device->api().kernels[kernel];
  const Precision wanted = precision_of(precision);
  const DeviceBlock workspace(device, kWorkspaceCounters + entry.workspace(args, device->traits(), wanted));
  const Launch how = {queue.stream(), block.address(), workspace.data(), &device->traits(), wanted};
  for (int i = 0; i < times; ++i) entry.launch(args, how);
  queue.wait();
  std::vector<double> seconds;
  if (rounds > 0) seconds = timed_launches(*device, queue, [&] { entry.launch(args, how); }, times, rounds);
  for (const auto& operand : operands)
    check(operand->fetch(queue), "[run_kernel] ", name, " wrote where it may not");
  return seconds;
}

}  // namespace

Precision precision_of(const std::string& name) {
  if (name == "float32") return Precision::kFloat32;
  if (name == "tf32") return Precision::kTf32;
  check(name == "bf16", "[device] precision must be float32, tf32 or bf16, got ", name);
  return Precision::kBf16;
}

void register_gpu(py::module_& m) {
  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const DeviceFault& fault) {
      const py::object type = py::module_::import("hotloop.errors").attr("DeviceError");
      const py::object error = type(fault.what());
      error.attr("status") = static_cast<int>(fault.status());
      PyErr_SetObject(type.ptr(), error.ptr());
    }
  });
  py::class_<DeviceLibrary, Library>(m, "DeviceLibrary", "A library of device kernels, opened from a file.")
      .def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("backend",
                             [](const DeviceLibrary& library) { return std::string(library.api().backend); })
      .def(
          "versions",
          [](const DeviceLibrary& library) {
            int driver = 0, built_for = 0;
            library.require(library.api().versions(&driver, &built_for), "ask for the driver");
            return std::make_pair(driver, built_for);
          },
          "(CUDA version of the driver, 0 without one; version this library was built for): 13000 is 13.0.")
      .def(
          "count",
          [](const DeviceLibrary& library) {
            int devices = 0;
            library.require(library.api().count(&devices), "count the devices");
            return devices;
          },
          "How many devices there are. Raises `DeviceError` where there is no driver.");
  py::class_<Device, DevicePtr>(m, "Device", "One device, with a context.")
      .def(py::init([](const Library& library, int number) {
             const py::gil_scoped_release release;  // a context takes up to a second
             return std::make_shared<Device>(library, number);
           }),
           py::arg("library"), py::arg("number") = 0)
      .def_property_readonly("traits", &traits)
      .def(
          "run_kernel", &run_kernel, py::arg("name"), py::arg("fields"), py::kw_only(), py::arg("seed") = 0,
          py::arg("run") = 0, py::arg("step") = 0, py::arg("groups") = std::vector<double>(),
          py::arg("dropout") = std::vector<double>(), py::arg("first") = true, py::arg("last") = true,
          py::arg("precision") = "float32", py::arg("times") = 1, py::arg("shift") = 0, py::arg("rounds") = 0,
          "Run one kernel on copies of dense arrays, which lie `shift` bytes past aligned addresses; outputs "
          "are copied back. For tests: sizes are not checked. With `rounds`, once more as a graph of `times` "
          "launches for each, and the seconds of a launch in each come back.");
}

}  // namespace hotloop
