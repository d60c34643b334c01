// SPDX-License-Identifier: Apache-2.0
// Where batches come from: arrays of equal row count, held by the caller, gathered row by row into a plan's
// input buffers and converted on the way (uint8 and float64 to the plan's real, int64 to index).
#pragma once

#include <vector>

#include "core/shuffle.h"
#include "cpu/thread_team.h"
#include "runtime/plan.h"

namespace hotloop {

enum class ElementType { kUint8, kInt32, kInt64, kFloat32, kFloat64 };

// rows x row_size elements, dense.
struct SourceArray {
  const std::byte* data = nullptr;
  ElementType type = ElementType::kFloat32;
  int64 rows = 0, row_size = 0;
};

// Rows [first, first + count) of an epoch's order: its permutation, or the rows as they stand.
struct RowRange {
  int64 first = 0, count = 0;
  const Permutation* order = nullptr;
};

// Copies those rows of `array` to `out`, dense, as the element type of the plan's input.
void gather(const SourceArray& array, const RowRange& rows, DType dtype, Real real, std::byte* out,
            ThreadTeam& team);

// Whether gather can feed an input of that type: integers to index inputs, numbers to real ones.
bool convertible(ElementType from, DType to);

}  // namespace hotloop
