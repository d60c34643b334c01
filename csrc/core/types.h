// SPDX-License-Identifier: Apache-2.0
// The integers that every layer counts with.
#pragma once

#include <cstdint>

namespace hotloop {

using index = std::int32_t;  // elements of index tensors: labels, ids
using int64 = std::int64_t;  // sizes, strides, counters

}  // namespace hotloop
