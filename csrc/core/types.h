// SPDX-License-Identifier: Apache-2.0
// The integers that every layer counts with.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace hotloop {

using index = std::int32_t;  // elements of index tensors: labels, ids
using int64 = std::int64_t;  // sizes, strides, counters

HOTLOOP_HD constexpr int64 ceil_div(int64 a, int64 b) { return (a + b - 1) / b; }

}  // namespace hotloop
