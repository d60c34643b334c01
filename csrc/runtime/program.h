// SPDX-License-Identifier: Apache-2.0
// A plan made ready to run on the CPU: an arena of its own, and its steps bound to addresses and sizes for
// the row counts in use. Running one is a loop of indirect calls: no allocation, lock, name or dtype.
#pragma once

#include <memory>
#include <vector>

#include "cpu/aligned_block.h"
#include "cpu/thread_team.h"
#include "kernels/isa.h"
#include "runtime/binding.h"
#include "runtime/memory.h"
#include "runtime/plan.h"
#include "runtime/team_choice.h"

namespace hotloop {

class Program final : public Places {
 public:
  // Throws InternalError for an illegal plan, std::invalid_argument for an ISA that cannot run it.
  Program(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory, std::string_view isa);
  // The same plan on the same memory with an arena of its own.
  std::unique_ptr<Program> twin() const { return std::make_unique<Program>(plan_, memory_, isa_); }

  const Plan& plan() const { return *plan_; }
  Memory& memory() const { return *memory_; }
  const std::shared_ptr<Memory>& shared_memory() const { return memory_; }
  std::string_view isa() const { return isa_; }
  double* metrics() { return metrics_.data(); }
  TeamChoice& team_choice() { return team_choice_; }
  // Arena, constants and metrics. The bound steps, some hundred bytes each, are not counted.
  std::size_t n_bytes() const {
    return arena_.bytes() + constants_.bytes() + metrics_.size() * sizeof(double);
  }

  // Address of a buffer of the plan.
  std::byte* address(int buffer) const override;

  // Runs steps [begin, end) on `rows` rows; those of the prepare section only if what they made is out of
  // date. ctx's pointers must hold params_width() numbers as plan.h says.
  // `beside`: work that fills the inputs; with beside_first it may run during the first stage.
  void run(ThreadTeam& team, int64 rows, int64 begin, int64 end, const StepContext& ctx,
           const Tasks& beside = {}, bool beside_first = false);

  // Whether the plan's first stage touches none of these buffers.
  bool begins_without(const std::vector<int>& buffers) const;

  // Fills in groups and dropout of a step's context from one row of step parameters.
  void set_params(StepContext& ctx, const double* params) const {
    ctx.groups = params;
    ctx.dropout = params + 2 * plan_->n_groups;
  }

 private:
  const Binding& bound(int64 rows, int threads);

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<Memory> memory_;
  std::string_view isa_;
  const KernelTable* table_;
  AlignedBlock arena_;
  AlignedBlock constants_;
  std::vector<double> metrics_;
  bool writes_parameters_;
  std::uint64_t prepared_at_ =
      ~std::uint64_t{0};  // the memory's version at the last run of the prepare section
  // The full batch and the last, partial one, each alone and on the team; a fifth takes the oldest's place.
  static constexpr int kMaxBindings = 4;
  std::unique_ptr<Binding> bindings_[kMaxBindings];
  int oldest_ = 0;
  TeamChoice team_choice_;
};

}  // namespace hotloop
