// SPDX-License-Identifier: Apache-2.0
// Passes over a data set on a device, as bindings/epoch.cc has them for the CPU.
#include <algorithm>
#include <optional>
#include <tuple>
#include <variant>

#include "bindings/epoch_call.h"
#include "core/error.h"
#include "runtime/device_epoch.h"

namespace hotloop {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style>;

// (address, FeedType, rows, elements of a row, owner): a dense array on the device.
using Placed = std::tuple<std::uintptr_t, int, int64, int64, py::object>;

SourceArray describe(const Placed& placed) {
  const auto& [address, type, rows, row_size, owner] = placed;
  check(type >= 0 && type <= static_cast<int>(ElementType::kFloat64), "[source] no element type ", type);
  SourceArray out{reinterpret_cast<const std::byte*>(address), static_cast<ElementType>(type), rows, row_size,
                  true};
  out.held = rows;
  return out;
}

// Keeps the array alive that sources share.
class HeldRows {
 public:
  HeldRows(const std::shared_ptr<Device>& device, const py::array& array)
      : owner_(array), rows_(std::make_shared<SharedRows>(device, hotloop::describe(array))) {}
  HeldRows(const std::shared_ptr<Device>& device, const Placed& placed)
      : owner_(std::get<4>(placed)), rows_(std::make_shared<SharedRows>(device, describe(placed))) {}
  const std::shared_ptr<SharedRows>& rows() const { return rows_; }

 private:
  py::object owner_;
  std::shared_ptr<SharedRows> rows_;
};

using HeldArray = std::variant<std::shared_ptr<HeldRows>, Placed, py::array>;

// Keeps the arrays alive that rows may come from: of a resident source those that lie on the device already.
class HeldSource {
 public:
  HeldSource(const std::shared_ptr<Device>& device, const std::vector<HeldArray>& arrays,
             std::optional<std::size_t> budget, RowNumbers numbers)
      : numbers_(std::move(numbers)), source_(device, parts(device, arrays), budget) {
    if (!source_.resident()) return;
    const auto is_host = [](const std::shared_ptr<HeldRows>& held) {
      return !held->rows()->array().on_device;
    };
    owned_.erase(std::remove_if(owned_.begin(), owned_.end(), is_host), owned_.end());
    numbers_.clear();
  }
  DeviceSource& source() { return source_; }
  const DeviceSource& source() const { return source_; }

 private:
  std::vector<DeviceSource::Part> parts(const std::shared_ptr<Device>& device,
                                        const std::vector<HeldArray>& arrays) {
    std::vector<DeviceSource::Part> found;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      if (const auto* shared = std::get_if<std::shared_ptr<HeldRows>>(&arrays[i]))
        owned_.push_back(*shared);
      else if (const auto* placed = std::get_if<Placed>(&arrays[i]))
        owned_.push_back(std::make_shared<HeldRows>(device, *placed));
      else
        owned_.push_back(std::make_shared<HeldRows>(device, std::get<py::array>(arrays[i])));
      SourceArray chosen = owned_.back()->rows()->array();
      choose_rows(chosen, numbers_, i);
      found.push_back({owned_.back()->rows(), chosen.numbers, chosen.rows});
    }
    return found;
  }

  std::vector<std::shared_ptr<HeldRows>> owned_;
  RowNumbers numbers_;
  DeviceSource source_;
};

EpochAnswer drive(DeviceProgram& program, HeldSource& source, EpochOptions& options) {
  return with_signals(options, [&] { return run_epoch(program, source.source(), options); });
}

EpochAnswer epoch(DeviceProgram& program, HeldSource& source, const std::vector<int>& inputs,
                  int64 batch_size, bool shuffle, std::uint64_t seed, std::uint32_t run,
                  std::uint32_t epoch_number, std::uint64_t step, int64 first_batch, int64 batches,
                  const DoubleArray& params, int64 begin, int64 end, int64 accumulate,
                  const DeviceOutputs& outputs, const StopFlag* stop, std::optional<double> deadline_s,
                  bool check_finite, int64 before, bool more) {
  EpochOptions options = run_options(program.plan(), inputs, batch_size, shuffle, seed, run, accumulate);
  options.outputs = epoch_outputs(program.plan(), source.source().rows(), outputs);
  options.epoch = epoch_number;
  options.step = step;
  options.first_batch = first_batch;
  options.batches = batches;
  set_params(options, program.plan(), params);
  options.begin = begin;
  if (end >= 0) options.end = end;
  options.deadline_s = deadline_s.value_or(-1.0);
  options.check_finite = check_finite;
  options.before = before;
  options.more = more;
  options.stop = stop == nullptr ? nullptr : &stop->value;
  return drive(program, source, options);
}

// The epochs of one training run; see BoundEpoch.
class DeviceEpoch {
 public:
  DeviceEpoch(DeviceProgram& program, HeldSource& source, std::vector<int> inputs, int64 batch_size,
              bool shuffle, std::uint64_t seed, std::uint32_t run, int64 accumulate)
      : program_(program), source_(source) {
    check(batch_size >= 1, "[epoch] batch size ", batch_size);
    options_ = run_options(program.plan(), std::move(inputs), batch_size, shuffle, seed, run, accumulate);
  }

  EpochAnswer run(std::uint32_t epoch_number, const DoubleArray& params, const StopFlag* stop,
                  std::optional<double> deadline_s, int64 first_batch, int64 batches) {
    EpochOptions options = epoch_options(options_, program_.plan(), source_.source().rows(), epoch_number,
                                         params, stop, deadline_s, first_batch, batches);
    return drive(program_, source_, options);
  }

 private:
  DeviceProgram& program_;
  HeldSource& source_;
  EpochOptions options_;
};

}  // namespace

void register_gpu_epoch(py::module_& m) {
  py::class_<HeldRows, std::shared_ptr<HeldRows>>(
      m, "SharedRows", "All rows of an array, of which sources share one copy on a device.")
      .def(py::init<const std::shared_ptr<Device>&, const py::array&>(), py::arg("device"), py::arg("array"))
      .def_property_readonly(
          "resident", [](const HeldRows& held) { return held.rows()->missing_bytes() == 0; },
          "Whether the copy is there.");
  py::class_<HeldSource>(
      m, "DeviceSource",
      "Arrays of equal row count for batches on a device: copied there if what is missing "
      "takes no more than `budget` bytes (None: half of what is free), else streamed. "
      "(address, FeedType, rows, elements of a row, owner) is a dense array that lies there. "
      "`numbers` as those of `Source`.")
      .def(py::init<const std::shared_ptr<Device>&, const std::vector<HeldArray>&, std::optional<std::size_t>,
                    RowNumbers>(),
           py::arg("device"), py::arg("arrays"), py::arg("budget") = py::none(),
           py::arg("numbers") = RowNumbers())
      .def_property_readonly("rows", [](const HeldSource& held) { return held.source().rows(); })
      .def_property_readonly(
          "resident", [](const HeldSource& held) { return held.source().resident(); },
          "Whether the device holds all of it; later changes to the arrays are not seen then.")
      .def_property_readonly(
          "nbytes", [](const HeldSource& held) { return held.source().n_bytes(); }, "Bytes on the device.");
  py::class_<DeviceEpoch>(m, "DeviceEpoch", "The epochs of one training run over one source, on a device.")
      .def(py::init<DeviceProgram&, HeldSource&, std::vector<int>, int64, bool, std::uint64_t, std::uint32_t,
                    int64>(),
           py::arg("program"), py::arg("source"), py::kw_only(), py::arg("inputs"), py::arg("batch_size"),
           py::arg("shuffle"), py::arg("seed"), py::arg("run"), py::arg("accumulate") = 1,
           py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def("run", &DeviceEpoch::run, py::arg("epoch"), py::arg("params"), py::arg("stop") = py::none(),
           py::arg("deadline_s") = py::none(), py::arg("first_batch") = 0, py::arg("batches") = -1,
           "One epoch, or a part of it, as run_epoch_on_device; ends at the first loss that is not finite.");
  m.def("run_epoch_on_device", &epoch, py::arg("program"), py::arg("source"), py::kw_only(),
        py::arg("inputs"), py::arg("batch_size"), py::arg("shuffle"), py::arg("seed") = 0, py::arg("run") = 0,
        py::arg("epoch") = 0, py::arg("step") = 0, py::arg("first_batch") = 0, py::arg("batches") = -1,
        py::arg("params"), py::arg("begin") = 0, py::arg("end") = -1, py::arg("accumulate") = 1,
        py::arg("outputs") = DeviceOutputs(), py::arg("stop") = py::none(),
        py::arg("deadline_s") = py::none(), py::arg("check_finite") = false, py::arg("before") = 0,
        py::arg("more") = false,
        "One pass over the source as run_epoch makes it, on a device: (steps run, 'done' | 'stopped' | "
        "'time' | 'diverged' | 'paused'). A stop takes effect after the launches in hand. An output is an "
        "array, "
        "or an address on the device.");
}

}  // namespace hotloop
