// SPDX-License-Identifier: Apache-2.0
// One pass over the data on a device: the same rows, steps and random numbers as run_epoch's, launched in
// graphs of many batches. The host looks at the clock, the stop flag and Python between two launches.
#pragma once

#include "runtime/device_program.h"
#include "runtime/device_source.h"
#include "runtime/epoch.h"

namespace hotloop {

// As the run_epoch of the CPU: the same options but for `adaptive`, the same answers. A pass that is stopped
// ends after the graphs in hand, at most 50 ms of work or two steps. What a diverged one leaves in the memory
// is undefined. Throws DeviceFault, too.
EpochResult run_epoch(DeviceProgram& program, DeviceSource& source, const EpochOptions& options);

}  // namespace hotloop
