// SPDX-License-Identifier: Apache-2.0
// The device table with failures on demand, and with counts: what a GPU refuses, or a kernel breaks, is what
// the executor must survive without a leak, and no emulated device does so by itself.
#pragma once

#include "cuda/api.h"

namespace hotloop::simt {

// The same table, each function of which first looks whether it is to fail. For one table in a process.
const DeviceApi* with_faults(const DeviceApi& api);

}  // namespace hotloop::simt
