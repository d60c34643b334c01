// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"
#include "cpu/aligned_block.h"
#include "runtime/plan.h"

namespace hotloop {
namespace {

// Bytes of a space; the arena's and the metrics' belong to the plan, the rest to the session.
std::size_t space_bytes(const Plan& plan, const MemorySizes& memory, Space space) {
  const std::size_t real = real_bytes(plan.real);
  const auto bytes = [](int64 n, std::size_t each) { return static_cast<std::size_t>(n) * each; };
  switch (space) {
    case Space::kArena:
      return plan.arena_bytes;
    case Space::kParameter:
    case Space::kGradient:
      return bytes(memory.parameters, real);
    case Space::kAccumulated:
      return memory.accumulated ? bytes(memory.parameters, real) : 0;
    case Space::kEma:
      return memory.ema ? bytes(memory.parameters, real) : 0;
    case Space::kEmaCounter:
      return memory.ema ? 8 : 0;
    case Space::kMoment1:
      return memory.moments >= 1 ? bytes(memory.parameters, real) : 0;
    case Space::kMoment2:
      return memory.moments >= 2 ? bytes(memory.parameters, real) : 0;
    case Space::kState:
      return bytes(memory.state, real);
    case Space::kCounter:
      return bytes(memory.counters, 8);
    case Space::kMetric:
      return bytes(plan.metric_doubles, 8);
    case Space::kConstant:
      return plan.constants.size() * real;
  }
  return 0;
}

void check_buffer(const Plan& plan, const MemorySizes& memory, std::size_t i) {
  const Buffer& b = plan.buffers[i];
  const std::size_t each = dtype_bytes(b.dtype, plan.real);
  check(b.size.per_row >= 0 && b.size.at(0) >= 0, "[plan] buffer ", i, " has a negative size");
  check(b.offset % each == 0, "[plan] buffer ", i, " is not aligned to its elements");
  check(b.space != Space::kArena || b.offset % AlignedBlock::kAlign == 0, "[plan] buffer ", i,
        " is not aligned to ", AlignedBlock::kAlign, " bytes");
  const std::size_t end = b.offset + static_cast<std::size_t>(b.size.at(plan.max_rows)) * each;
  const std::size_t have = space_bytes(plan, memory, b.space);
  check(end <= have, "[plan] buffer ", i, " ends at byte ", end, " of a space of ", have);
  const bool counts = b.space == Space::kCounter || b.space == Space::kEmaCounter;
  check(!counts || b.dtype == DType::kInt64, "[plan] counter buffer ", i, " is not int64");
  check(b.space != Space::kMetric || b.dtype == DType::kDouble, "[plan] metric buffer ", i, " is not double");
}

void check_operand(const Plan& plan, const Field& field, const FieldValue& value, std::string_view where) {
  const bool optional =
      field.kind == FieldKind::InOpt || field.kind == FieldKind::OutOpt || field.kind == FieldKind::InOutOpt;
  if (value.buffer < 0) {
    check(optional, where, ": operand ", field.name, " is absent but required");
    return;
  }
  check(value.buffer < static_cast<int>(plan.buffers.size()), where, ": operand ", field.name,
        " names buffer ", value.buffer, " of ", plan.buffers.size());
  const Buffer& b = plan.buffers[static_cast<std::size_t>(value.buffer)];
  check(b.dtype == field.dtype, where, ": operand ", field.name, " has the wrong element type");
  check(value.offset >= 0 && value.offset <= b.size.at(plan.max_rows), where, ": operand ", field.name,
        " begins outside its buffer");
  check(!is_written(field.kind) || b.space != Space::kConstant, where, ": operand ", field.name,
        " would write a constant");
}

// That rows [r, s) of what a step writes need only rows [r, s) of the batch is the compiler's to know; here,
// that a block of rows is a part of every buffer it writes.
void check_stages(const Plan& plan) {
  int64 at = 0;
  for (const PlanStage& stage : plan.stages) {
    check(stage.begin == at && stage.end > at && stage.end <= static_cast<int64>(plan.steps.size()),
          "[plan] a stage begins at step ", stage.begin, " and ends at ", stage.end, ", expected from ", at);
    at = stage.end;
    for (int64 i = stage.begin; stage.rows && i < stage.end; ++i) {
      const PlanStep& step = plan.steps[static_cast<std::size_t>(i)];
      const auto fields = kernel_info(step.kernel).fields;
      for (std::size_t f = 0; f < fields.size(); ++f) {
        const int buffer = step.fields[f].buffer;
        if (!is_written(fields[f].kind) || buffer < 0) continue;
        const Affine& size = plan.buffers[static_cast<std::size_t>(buffer)].size;
        check(size.per_row > 0 && size.constant == 0, "[plan] step ", i, ", in a stage of rows, writes ",
              fields[f].name, ", which has none");
      }
    }
  }
  check(plan.stages.empty() || at == static_cast<int64>(plan.steps.size()), "[plan] the stages end at ", at);
}

}  // namespace

SpaceSet written_spaces(const Plan& plan) {
  SpaceSet found = 0;
  for (const PlanStep& step : plan.steps) {
    const auto fields = kernel_info(step.kernel).fields;
    for (std::size_t i = 0; i < fields.size(); ++i)
      if (is_written(fields[i].kind) && step.fields[i].buffer >= 0)
        found |= bit(plan.buffers[static_cast<std::size_t>(step.fields[i].buffer)].space);
  }
  return found;
}

void check_plan(const Plan& plan, const MemorySizes& memory) {
  check(plan.max_rows >= 1, "[plan] max_rows must be at least 1, got ", plan.max_rows);
  check(plan.prepare >= 0 && plan.prepare <= static_cast<int64>(plan.steps.size()), "[plan] prepare ends at ",
        plan.prepare, " of ", plan.steps.size());
  check(plan.update >= 0 && plan.update <= static_cast<int64>(plan.steps.size()),
        "[plan] the update begins at ", plan.update, " of ", plan.steps.size());
  for (std::size_t i = 0; i < plan.buffers.size(); ++i) check_buffer(plan, memory, i);
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    const PlanStep& step = plan.steps[s];
    const KernelInfo& info = kernel_info(step.kernel);
    const std::string where = "[plan] step " + std::to_string(s) + " (" + std::string(info.name) + ")";
    check(step.fields.size() == info.fields.size(), where, ": has ", step.fields.size(), " fields, needs ",
          info.fields.size());
    for (std::size_t f = 0; f < info.fields.size(); ++f) {
      const Field& field = info.fields[f];
      const FieldValue& value = step.fields[f];
      if (field.kind == FieldKind::Dim)
        check(value.dim.at(0) >= 0 && value.dim.at(plan.max_rows) >= 0, where, ": ", field.name,
              " is negative");
      else if (field.kind != FieldKind::Int && field.kind != FieldKind::Real)
        check_operand(plan, field, value, where);
      if (field.name == "dropout")
        check(value.integer < plan.n_dropout, where, ": dropout layer ", value.integer, " of ",
              plan.n_dropout);
      if (field.name == "group")
        check(value.integer >= 0 && value.integer < plan.n_groups, where, ": group ", value.integer, " of ",
              plan.n_groups);
    }
  }
  check_stages(plan);
}

}  // namespace hotloop
