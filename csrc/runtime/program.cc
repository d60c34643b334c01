// SPDX-License-Identifier: Apache-2.0
#include "runtime/program.h"

#include <cstring>

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

template <class T>
void put(std::byte* args, const Field& field, T value) {
  std::memcpy(args + field.offset, &value, sizeof value);
}

}  // namespace

Program::Program(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory, std::string_view isa)
    : plan_((check_plan(*plan, memory->sizes()), std::move(plan))),
      memory_(std::move(memory)),
      isa_(unit_for(isa, plan_->real).name),
      table_(table_for(unit_for(isa, plan_->real), plan_->real)),
      arena_(plan_->arena_bytes),
      constants_(plan_->constants.size() * real_bytes(plan_->real)),
      metrics_(static_cast<std::size_t>(plan_->metric_doubles), 0.0) {
  check(memory_->real() == plan_->real, "[plan] the plan and the session differ in their scalar type");
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

BoundStep Program::bind(const PlanStep& step, int64 rows) const {
  BoundStep bound;
  bound.fn = (*table_)[static_cast<int>(step.kernel)];
  std::memset(bound.args, 0, sizeof bound.args);
  const auto fields = kernel_info(step.kernel).fields;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const Field& field = fields[i];
    const FieldValue& value = step.fields[i];
    switch (field.kind) {
      case FieldKind::Dim:
        put(bound.args, field, value.dim.at(rows));
        break;
      case FieldKind::Int:
        put(bound.args, field, value.integer);
        break;
      case FieldKind::Real:
        put(bound.args, field, value.number);
        break;
      default:
        if (value.buffer >= 0) {
          const std::size_t each = dtype_bytes(field.dtype, plan_->real);
          put(bound.args, field, address(value.buffer) + static_cast<std::size_t>(value.offset) * each);
        }
    }
  }
  bound.chunks = bound.fn.chunks(bound.args);
  return bound;
}

const std::vector<BoundStep>& Program::bound(int64 rows) {
  for (const Binding& binding : bindings_)
    if (binding.rows == rows) return binding.steps;
  newest_ = 1 - newest_;
  Binding& binding = bindings_[newest_];
  binding.rows = -1;
  binding.steps.clear();
  binding.steps.reserve(plan_->steps.size());
  for (const PlanStep& step : plan_->steps) binding.steps.push_back(bind(step, rows));
  binding.rows = rows;
  return binding.steps;
}

void Program::run(ThreadTeam& team, int64 rows, int64 begin, int64 end, const StepContext& ctx) {
  check(rows >= 0 && rows <= plan_->max_rows, "[plan] ", rows, " rows for a plan of at most ",
        plan_->max_rows);
  check(0 <= begin && begin <= end && end <= static_cast<int64>(plan_->steps.size()), "[plan] steps ", begin,
        " to ", end, " of ", plan_->steps.size());
  const FlushDenormals flush;
  const BoundStep* steps = bound(rows).data();
  for (int64 i = begin; i < end; ++i) {
    const BoundStep& step = steps[i];
    team.run(step.chunks, [&](int64 chunk) { step.fn.run(step.args, ctx, chunk); });
  }
}

}  // namespace hotloop
