// SPDX-License-Identifier: Apache-2.0
// Which launches must wait for which: two that touch the same bytes, one of them writing. Everything else may
// run side by side. Byte ranges, because buffers share the arena and the flat memory.
#pragma once

#include <cstddef>
#include <vector>

#include "runtime/plan.h"

namespace hotloop {

// Bytes [begin, end) of a region: a Space, or the step block.
struct Access {
  int region = 0;
  std::size_t begin = 0, end = 0;
  bool writes = false;
};
constexpr int kStepRegion = kNumSpaces;
using Accesses = std::vector<Access>;

// All bytes of a buffer from `offset` elements on, as long as there are so many rows.
Access access_of(const Plan& plan, int buffer, int64 offset, int64 rows, bool writes);
// Whether a step's kernel reads what varies by step.
bool reads_step(const PlanStep& step);
// What step `number` of a plan touches.
void add_accesses(const Plan& plan, int64 number, int64 rows, Accesses& to);

// Launches in the order of their addition. For each, those that it must wait for and that none of the others
// it waits for implies: a transitive reduction.
class LaunchOrder {
 public:
  std::vector<std::size_t> add(Accesses accesses);
  std::size_t size() const { return launches_.size(); }

 private:
  struct Launch {
    Accesses accesses;
    std::vector<bool> after;  // of the launches before: whether this one comes after it, by whatever way
  };
  std::vector<Launch> launches_;
};

}  // namespace hotloop
