// SPDX-License-Identifier: Apache-2.0
// A plan's steps bound to addresses and sizes for one number of rows: as they stand, for one thread, and in
// stages, for a team. Made once per row count; running one is a loop of indirect calls.
#pragma once

#include <memory>
#include <vector>

#include "cpu/thread_team.h"
#include "runtime/plan.h"

namespace hotloop {

// One kernel call with every argument resolved.
struct BoundStep {
  KernelFn fn;
  int64 chunks = 0;
  alignas(8) std::byte args[kMaxArgsBytes];
};

// Where the buffers of a plan lie.
class Places {
 public:
  virtual ~Places() = default;
  virtual std::byte* address(int buffer) const = 0;
};

// Fills in the argument struct of a step (its kernel's args_bytes) for rows [first_row, first_row + rows).
void bind_args(const Plan& plan, const PlanStep& step, const Places& places, int64 first_row, int64 rows,
               std::byte* args);

// Steps [begin, end) of the plan between two barriers.
struct BoundStage {
  int64 begin = 0, end = 0;
  int64 tasks = 0;
  // chunks: one call per step, and the first task of each. rows: a block's calls one after another.
  std::vector<BoundStep> calls;
  std::vector<int64> first_task;
  std::vector<int64> first_row;  // of each block of rows; empty: the stage is one of chunks
};

class Binding {
 public:
  // In stages if the plan has some and there is more than one thread.
  Binding(const Plan& plan, const KernelTable& table, const Places& places, int64 rows, int threads);

  int64 rows() const { return rows_; }
  int threads() const { return threads_; }

  // Steps [begin, end), or the stages that lie in it, each on the team. `beside` is work that must be done
  // before a step reads an input; it joins the first stage if `beside_first`, else comes before it.
  void run(ThreadTeam& team, int64 begin, int64 end, const StepContext& ctx, const Tasks& beside,
           bool beside_first) const;

 private:
  BoundStep bind(const PlanStep& step, int64 first_row, int64 rows) const;
  BoundStage bind_rows(const PlanStage& stage, int64 block_rows) const;
  BoundStage bind_chunks(int64 begin, int64 end) const;

  const Plan* plan_;
  const KernelTable* table_;
  const Places* places_;
  int64 rows_;
  int threads_;
  std::vector<BoundStep> steps_;
  std::vector<BoundStage> stages_;
};

// Rows that one thread of so many takes through a stage of rows; 0 if they are too few to share. Chosen for
// speed alone: the bits do not depend on it.
int64 rows_of_block(int64 rows, int threads);

}  // namespace hotloop
