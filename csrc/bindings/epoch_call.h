// SPDX-License-Identifier: Apache-2.0
// What calls of an epoch share, be it on the CPU or on a device: arrays as sources and outputs, the flag that
// stops, and Python's signals meanwhile.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/register.h"
#include "runtime/epoch.h"

namespace hotloop {

struct StopFlag {
  std::atomic<bool> value{false};
};

using Outputs = std::vector<std::pair<int, py::array>>;
// As those, or an address on the device.
using DeviceOutputs = std::vector<std::pair<int, py::object>>;
using EpochAnswer = std::pair<int64, std::string>;

// A dense array as rows; the caller keeps it. Throws TypeError for a dtype that no plan reads.
SourceArray describe(const py::array& array);

// For each array, the numbers of the rows that a source has of it; None, or none at all: all rows.
using RowNumbers = std::vector<std::optional<py::array_t<int64, py::array::c_style>>>;

// Rows `numbers[i]` of an array. Throws InternalError for one that has no such row.
void choose_rows(SourceArray& array, const RowNumbers& numbers, std::size_t i);

// Arrays for so many rows of buffers. Throws InternalError where one does not fit.
std::vector<EpochOutput> epoch_outputs(const Plan& plan, int64 rows, const Outputs& outputs);
// An address is trusted to have room for them.
std::vector<EpochOutput> epoch_outputs(const Plan& plan, int64 rows, const DeviceOutputs& outputs);

// What is the same in all epochs of a run.
EpochOptions run_options(const Plan& plan, std::vector<int> inputs, int64 batch_size, bool shuffle,
                         std::uint64_t seed, std::uint32_t run, int64 accumulate);

// One epoch of a run, or a part of it, over a source of so many rows; it ends at a loss that is not finite.
EpochOptions epoch_options(EpochOptions run, const Plan& plan, int64 rows, std::uint32_t epoch,
                           const py::array_t<double, py::array::c_style>& params, const StopFlag* stop,
                           std::optional<double> deadline_s, int64 first_batch, int64 batches);

// `params`: (steps, params_width), held by the caller.
void set_params(EpochOptions& options, const Plan& plan,
                const py::array_t<double, py::array::c_style>& params);

// Runs an epoch with the GIL released. Python's signal handlers run every 50 ms; what one of them raises ends
// the epoch after the step in hand.
EpochAnswer with_signals(EpochOptions& options, const std::function<EpochResult()>& run);

}  // namespace hotloop
