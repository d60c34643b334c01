// SPDX-License-Identifier: Apache-2.0
// A plan made ready to run on the CPU: an arena of its own, and its steps bound to addresses and sizes for
// the row counts in use. Running one is a loop of indirect calls: no allocation, lock, name or dtype.
#pragma once

#include <memory>
#include <vector>

#include "cpu/aligned_block.h"
#include "cpu/thread_team.h"
#include "kernels/isa.h"
#include "runtime/memory.h"
#include "runtime/plan.h"
#include "runtime/team_choice.h"

namespace hotloop {

// One kernel call with every argument resolved.
struct BoundStep {
  KernelFn fn;
  int64 chunks = 0;
  alignas(8) std::byte args[kMaxArgsBytes];
};

class Program {
 public:
  // Throws InternalError for an illegal plan, std::invalid_argument for an ISA that cannot run it.
  Program(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory, std::string_view isa);

  const Plan& plan() const { return *plan_; }
  Memory& memory() const { return *memory_; }
  std::string_view isa() const { return isa_; }
  double* metrics() { return metrics_.data(); }
  TeamChoice& team_choice() { return team_choice_; }

  // Address of a buffer of the plan.
  std::byte* address(int buffer) const;

  // Runs steps [begin, end) on `rows` rows. ctx's pointers must hold params_width() numbers as plan.h says.
  void run(ThreadTeam& team, int64 rows, int64 begin, int64 end, const StepContext& ctx);

  // Fills in groups and dropout of a step's context from one row of step parameters.
  void set_params(StepContext& ctx, const double* params) const {
    ctx.groups = params;
    ctx.dropout = params + 2 * plan_->n_groups;
  }

 private:
  const std::vector<BoundStep>& bound(int64 rows);
  BoundStep bind(const PlanStep& step, int64 rows) const;

  struct Binding {
    int64 rows = -1;
    std::vector<BoundStep> steps;
  };

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<Memory> memory_;
  std::string_view isa_;
  const KernelTable* table_;
  AlignedBlock arena_;
  AlignedBlock constants_;
  std::vector<double> metrics_;
  // The full batch and the last, partial one; a third count takes the place of the older.
  Binding bindings_[2];
  int newest_ = 0;
  TeamChoice team_choice_;
};

}  // namespace hotloop
