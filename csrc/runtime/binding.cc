// SPDX-License-Identifier: Apache-2.0
#include "runtime/binding.h"

#include <algorithm>
#include <cstring>

namespace hotloop {
namespace {

// Fewer rows leave the register tiles half empty, and packed panels are read for too little.
constexpr int64 kMinBlockRows = 12;
// Blocks of twice that are cut once more, two for each thread: then one that is late delays less. Smaller
// halves would cost 2 % of the stage, since the weights pass through the caches once for every block.
constexpr int64 kShareBlockRows = 40;

template <class T>
void put(std::byte* args, const Field& field, T value) {
  std::memcpy(args + field.offset, &value, sizeof value);
}

void run_task(const BoundStage& stage, const StepContext& ctx, int64 task) {
  if (stage.first_row.empty()) {
    const auto next = std::upper_bound(stage.first_task.begin(), stage.first_task.end(), task);
    const auto at = static_cast<std::size_t>(next - stage.first_task.begin()) - 1;
    const BoundStep& call = stage.calls[at];
    return call.fn.run(call.args, ctx, task - stage.first_task[at]);
  }
  StepContext own = ctx;
  own.first_row = stage.first_row[static_cast<std::size_t>(task)];
  const int64 steps = stage.end - stage.begin;
  const BoundStep* calls = stage.calls.data() + task * steps;
  for (int64 i = 0; i < steps; ++i) calls[i].fn.run_all(calls[i].args, own);
}

}  // namespace

int64 rows_of_block(int64 rows, int threads) {
  if (threads < 2 || rows < kMinBlockRows * threads) return 0;
  const int64 shares = rows >= 2 * kShareBlockRows * threads ? 2 : 1;
  return ceil_div(rows, shares * threads);
}

Binding::Binding(const Plan& plan, const KernelTable& table, const Places& places, int64 rows, int threads)
    : plan_(&plan), table_(&table), places_(&places), rows_(rows), threads_(threads) {
  steps_.reserve(plan.steps.size());
  for (const PlanStep& step : plan.steps) steps_.push_back(bind(step, 0, rows));
  if (threads < 2) return;
  const int64 block_rows = rows_of_block(rows, threads);
  for (const PlanStage& stage : plan.stages) {
    if (stage.rows && block_rows > 0) {
      stages_.push_back(bind_rows(stage, block_rows));
    } else if (stage.rows) {
      for (int64 i = stage.begin; i < stage.end; ++i) stages_.push_back(bind_chunks(i, i + 1));
    } else {
      stages_.push_back(bind_chunks(stage.begin, stage.end));
    }
  }
}

void bind_args(const Plan& plan, const PlanStep& step, const Places& places, int64 first_row, int64 rows,
               std::byte* args) {
  const KernelInfo& info = kernel_info(step.kernel);
  std::memset(args, 0, info.args_bytes);
  for (std::size_t i = 0; i < info.fields.size(); ++i) {
    const Field& field = info.fields[i];
    const FieldValue& value = step.fields[i];
    switch (field.kind) {
      case FieldKind::Dim:
        put(args, field, value.dim.at(rows));
        break;
      case FieldKind::Int:
        put(args, field, value.integer);
        break;
      case FieldKind::Real:
        put(args, field, value.number);
        break;
      default:
        if (value.buffer >= 0) {
          const int64 per_row = plan.buffers[static_cast<std::size_t>(value.buffer)].size.per_row;
          const auto at = static_cast<std::size_t>(per_row * first_row + value.offset);
          put(args, field, places.address(value.buffer) + at * dtype_bytes(field.dtype, plan.real));
        }
    }
  }
}

BoundStep Binding::bind(const PlanStep& step, int64 first_row, int64 rows) const {
  BoundStep bound;
  bound.fn = (*table_)[static_cast<int>(step.kernel)];
  bind_args(*plan_, step, *places_, first_row, rows, bound.args);
  bound.chunks = bound.fn.chunks(bound.args);
  return bound;
}

BoundStage Binding::bind_rows(const PlanStage& stage, int64 block_rows) const {
  BoundStage bound;
  bound.begin = stage.begin;
  bound.end = stage.end;
  for (int64 first = 0; first < rows_; first += block_rows) {
    for (int64 i = stage.begin; i < stage.end; ++i)
      bound.calls.push_back(
          bind(plan_->steps[static_cast<std::size_t>(i)], first, std::min(block_rows, rows_ - first)));
    bound.first_row.push_back(first);
  }
  bound.tasks = static_cast<int64>(bound.first_row.size());
  return bound;
}

BoundStage Binding::bind_chunks(int64 begin, int64 end) const {
  BoundStage bound;
  bound.begin = begin;
  bound.end = end;
  for (int64 i = begin; i < end; ++i) {
    const BoundStep& step = steps_[static_cast<std::size_t>(i)];
    if (step.chunks == 0) continue;
    bound.calls.push_back(step);
    bound.first_task.push_back(bound.tasks);
    bound.tasks += step.chunks;
  }
  return bound;
}

void Binding::run(ThreadTeam& team, int64 begin, int64 end, const StepContext& ctx, const Tasks& beside,
                  bool beside_first) const {
  int64 joined = beside.count;
  if (stages_.empty() || !beside_first) {
    team.run(joined, [&](int64 task) { beside.run(task); });
    joined = 0;
  }
  if (stages_.empty()) {
    for (int64 i = begin; i < end; ++i) {
      const BoundStep& step = steps_[static_cast<std::size_t>(i)];
      if (team.threads() == 1)
        step.fn.run_all(step.args, ctx);
      else
        team.run(step.chunks, [&](int64 chunk) { step.fn.run(step.args, ctx, chunk); });
    }
    return;
  }
  for (const BoundStage& stage : stages_) {
    if (stage.begin < begin || stage.end > end) continue;
    team.run(joined + stage.tasks, [&](int64 task) {
      if (task < joined)
        beside.run(task);
      else
        run_task(stage, ctx, task - joined);
    });
    joined = 0;
  }
}

}  // namespace hotloop
