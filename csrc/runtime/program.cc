// SPDX-License-Identifier: Apache-2.0
#include "runtime/program.h"

#include <algorithm>

#include "cpu/fp_mode.h"

namespace hotloop {
namespace {

const KernelTable* table_for(const IsaUnit& unit, Real real) {
  const KernelTable* table = real == Real::kFloat32 ? unit.table_float : unit.table_double;
  if (table == nullptr)
    throw std::invalid_argument("[isa] float64 runs in the generic unit only, not in '" +
                                std::string(unit.name) + "'; pass isa=\"generic\" or leave it out");
  return table;
}

const IsaUnit& unit_for(std::string_view isa, Real real) {
  return find_isa(isa.empty() && real == Real::kFloat64 ? "generic" : isa);
}

// A CPU's kernels read a right operand row by row or in panels.
void check_for_cpu(const Plan& plan) {
  for (const PlanStep& step : plan.steps) {
    if (step.kernel != Kernel::k_matmul) continue;
    const auto fields = kernel_info(step.kernel).fields;
    bool packed = false, strided = false;
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (fields[i].name == "b_packed") packed = step.fields[i].integer != 0;
      if (fields[i].name == "b_stride_n") {
        const Affine& stride = step.fields[i].dim;
        strided = stride.constant != 1 || stride.per_row != 0;
      }
    }
    check(packed || !strided, "[plan] a product reads B by columns, which only a device does");
  }
}

}  // namespace

Program::Program(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory, std::string_view isa)
    : plan_((check_plan(*plan, memory->sizes()), std::move(plan))),
      memory_(std::move(memory)),
      isa_(unit_for(isa, plan_->real).name),
      table_(table_for(unit_for(isa, plan_->real), plan_->real)),
      arena_(plan_->arena_bytes),
      constants_(plan_->constants.size() * real_bytes(plan_->real)),
      metrics_(static_cast<std::size_t>(plan_->metric_doubles), 0.0),
      writes_parameters_((written_spaces(*plan_) & bit(Space::kParameter)) != 0) {
  check_for_cpu(*plan_);
  check(memory_->real() == plan_->real, "[plan] the plan and the session differ in their scalar type");
  check(memory_->has_gradients(), "[plan] a snapshot has no gradients, so no program runs on it");
  for (std::size_t i = 0; i < plan_->constants.size(); ++i) {
    if (plan_->real == Real::kFloat32)
      reinterpret_cast<float*>(constants_.data())[i] = static_cast<float>(plan_->constants[i]);
    else
      reinterpret_cast<double*>(constants_.data())[i] = plan_->constants[i];
  }
}

std::byte* Program::address(int buffer) const {
  const Buffer& b = plan_->buffers[static_cast<std::size_t>(buffer)];
  switch (b.space) {
    case Space::kArena:
      return arena_.data() + b.offset;
    case Space::kConstant:
      return constants_.data() + b.offset;
    case Space::kMetric:
      return reinterpret_cast<std::byte*>(const_cast<double*>(metrics_.data())) + b.offset;
    default:
      return memory_->space(b.space) + b.offset;
  }
}

const Binding& Program::bound(int64 rows, int threads) {
  const int staged = plan_->stages.empty() ? 1 : threads;
  for (const auto& binding : bindings_)
    if (binding != nullptr && binding->rows() == rows && binding->threads() == staged) return *binding;
  oldest_ = (oldest_ + 1) % kMaxBindings;
  bindings_[oldest_] = std::make_unique<Binding>(*plan_, *table_, *this, rows, staged);
  return *bindings_[oldest_];
}

bool Program::begins_without(const std::vector<int>& buffers) const {
  if (plan_->stages.empty()) return false;
  const PlanStage& first = plan_->stages.front();
  for (int64 i = first.begin; i < first.end; ++i)
    for (const FieldValue& value : plan_->steps[static_cast<std::size_t>(i)].fields)
      if (std::find(buffers.begin(), buffers.end(), value.buffer) != buffers.end() && value.buffer >= 0)
        return false;
  return true;
}

void Program::run(ThreadTeam& team, int64 rows, int64 begin, int64 end, const StepContext& ctx,
                  const Tasks& beside, bool beside_first) {
  check(rows >= 0 && rows <= plan_->max_rows, "[plan] ", rows, " rows for a plan of at most ",
        plan_->max_rows);
  check(0 <= begin && begin <= end && end <= static_cast<int64>(plan_->steps.size()), "[plan] steps ", begin,
        " to ", end, " of ", plan_->steps.size());
  memory_->to_host();
  const FlushDenormals flush;
  const std::uint64_t version = memory_->version();
  const bool prepares = begin == 0 && end >= plan_->prepare;
  if (prepares && !memory_->is_stale(prepared_at_)) begin = plan_->prepare;
  if (prepares) prepared_at_ = version;
  if (writes_parameters_) memory_->parameters_changed();
  bound(rows, team.threads()).run(team, begin, end, ctx, beside, beside_first && begin == 0);
}

}  // namespace hotloop
