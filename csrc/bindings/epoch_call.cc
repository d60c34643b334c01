// SPDX-License-Identifier: Apache-2.0
#include "bindings/epoch_call.h"

#include <exception>

#include "core/error.h"

namespace hotloop {
namespace {

const Buffer& output_buffer(const Plan& plan, int buffer) {
  check(buffer >= 0 && buffer < static_cast<int>(plan.buffers.size()), "[epoch] output names buffer ",
        buffer);
  const Buffer& b = plan.buffers[static_cast<std::size_t>(buffer)];
  check(b.size.constant == 0 && b.dtype == DType::kReal, "[epoch] output buffer ", buffer, " is not per row");
  return b;
}

EpochOutput epoch_output(const Plan& plan, int64 rows, int buffer, const py::array& out) {
  const Buffer& b = output_buffer(plan, buffer);
  check(static_cast<std::size_t>(out.itemsize()) == real_bytes(plan.real) && out.dtype().kind() == 'f' &&
            out.writeable() && (out.flags() & py::array::c_style) != 0 && out.size() == rows * b.size.per_row,
        "[epoch] an output array does not fit its buffer");
  return {buffer, static_cast<std::byte*>(const_cast<void*>(out.data())), false};
}

}  // namespace

SourceArray describe(const py::array& array) {
  check(array.ndim() >= 1, "[source] an array has no rows");
  check((array.flags() & py::array::c_style) != 0, "[source] an array is not C-contiguous");
  SourceArray out{static_cast<const std::byte*>(array.data()), element_type(array), array.shape(0), 1};
  for (py::ssize_t axis = 1; axis < array.ndim(); ++axis) out.row_size *= array.shape(axis);
  out.held = out.rows;
  return out;
}

void choose_rows(SourceArray& array, const RowNumbers& numbers, std::size_t i) {
  if (i >= numbers.size() || !numbers[i].has_value()) return;
  check(numbers[i]->ndim() == 1, "[source] the numbers of rows are ", numbers[i]->ndim(), "-dimensional");
  array.numbers = numbers[i]->data();
  array.rows = numbers[i]->shape(0);
  check(numbers_fit(array), "[source] a number of a row is not below ", array.held, ", the rows there are");
}

std::vector<EpochOutput> epoch_outputs(const Plan& plan, int64 rows, const Outputs& outputs) {
  std::vector<EpochOutput> found;
  for (const auto& [buffer, array] : outputs) found.push_back(epoch_output(plan, rows, buffer, array));
  return found;
}

std::vector<EpochOutput> epoch_outputs(const Plan& plan, int64 rows, const DeviceOutputs& outputs) {
  std::vector<EpochOutput> found;
  for (const auto& [buffer, out] : outputs) {
    if (py::isinstance<py::array>(out)) {
      found.push_back(epoch_output(plan, rows, buffer, out.cast<py::array>()));
      continue;
    }
    (void)output_buffer(plan, buffer);
    found.push_back({buffer, reinterpret_cast<std::byte*>(out.cast<std::uintptr_t>()), true});
  }
  return found;
}

EpochOptions run_options(const Plan& plan, std::vector<int> inputs, int64 batch_size, bool shuffle,
                         std::uint64_t seed, std::uint32_t run, int64 accumulate) {
  EpochOptions options;
  options.inputs = std::move(inputs);
  options.batch_size = batch_size;
  options.shuffle = shuffle;
  options.seed = seed;
  options.run = run;
  options.accumulate = accumulate;
  options.end = static_cast<int64>(plan.steps.size());
  return options;
}

EpochOptions epoch_options(EpochOptions run, const Plan& plan, int64 rows, std::uint32_t epoch,
                           const py::array_t<double, py::array::c_style>& params, const StopFlag* stop,
                           std::optional<double> deadline_s, int64 first_batch, int64 batches) {
  run.epoch = epoch;
  run.step = static_cast<std::uint64_t>(epoch) * static_cast<std::uint64_t>(ceil_div(rows, run.batch_size));
  set_params(run, plan, params);
  run.check_finite = true;
  run.stop = stop == nullptr ? nullptr : &stop->value;
  run.deadline_s = deadline_s.value_or(-1.0);
  run.first_batch = first_batch;
  run.batches = batches;
  return run;
}

void set_params(EpochOptions& options, const Plan& plan,
                const py::array_t<double, py::array::c_style>& params) {
  check(params.ndim() == 2 && params.shape(1) == plan.params_width(),
        "[epoch] step parameters must be (steps, ", plan.params_width(), ")");
  options.params = params.data();
  options.n_params = params.shape(0);
}

EpochAnswer with_signals(EpochOptions& options, const std::function<EpochResult()>& run) {
  std::exception_ptr raised;
  options.poll = [&raised] {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) raised = std::make_exception_ptr(py::error_already_set());
    return raised != nullptr;
  };
  EpochResult result;
  {
    const py::gil_scoped_release release;  // sources hold the arrays, the caller too; nothing else is touched
    result = run();
  }
  if (raised) std::rethrow_exception(raised);
  constexpr const char* kStatus[] = {"done", "stopped", "time", "diverged", "paused"};
  return {result.steps, kStatus[static_cast<int>(result.status)]};
}

}  // namespace hotloop
