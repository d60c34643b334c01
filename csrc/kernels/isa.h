// SPDX-License-Identifier: Apache-2.0
// Which kernel units this machine can run, and which one is used.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/shuffle_rows.h"
#include "kernels/table.h"

namespace hotloop {

struct IsaUnit {
  std::string_view name;
  const KernelTable* table_float;
  const KernelTable* table_double;     // null where the unit has no float64 column
  double (*fma_peak)(double seconds);  // FLOP/s of one core, float32
  ShuffleRows shuffle_rows;            // the order of a batch
};

// Units built into this library that this CPU can run, slowest first; the first is "generic".
const std::vector<IsaUnit>& usable_isas();

// The unit of that name; "" means HOTLOOP_ISA if set, else the fastest. Throws std::invalid_argument for
// one that is unknown or that this CPU lacks.
const IsaUnit& find_isa(std::string_view name);

// A kernel of the unit in use; doubles run in the generic one.
const KernelFn& kernel_in_use(Kernel kernel, bool is_double);

}  // namespace hotloop
