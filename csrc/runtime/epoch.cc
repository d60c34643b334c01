// SPDX-License-Identifier: Apache-2.0
#include "runtime/epoch.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace hotloop {
namespace {

using Clock = std::chrono::steady_clock;

void copy_outputs(const Program& program, const EpochOptions& o, int64 first, int64 rows) {
  for (const EpochOutput& output : o.outputs) {
    const Buffer& buffer = program.plan().buffers[static_cast<std::size_t>(output.buffer)];
    const std::size_t row_bytes =
        static_cast<std::size_t>(buffer.size.per_row) * dtype_bytes(buffer.dtype, program.plan().real);
    std::memcpy(output.data + static_cast<std::size_t>(first) * row_bytes, program.address(output.buffer),
                static_cast<std::size_t>(rows) * row_bytes);
  }
}

// The totals only ever grow, so that once they are not finite they stay so.
bool diverged(Program& program) {
  return !(std::isfinite(program.metrics()[0]) && std::isfinite(program.metrics()[1]));
}

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

int64 check_source(const Plan& plan, const std::vector<SourceArray>& source, const EpochOptions& o) {
  check(!source.empty() && source.size() == o.inputs.size(), "[epoch] ", source.size(), " arrays for ",
        o.inputs.size(), " inputs");
  check(o.batch_size >= 1 && o.batch_size <= plan.max_rows, "[epoch] batch size ", o.batch_size,
        " for a plan of at most ", plan.max_rows, " rows");
  for (std::size_t i = 0; i < source.size(); ++i) {
    check(o.inputs[i] >= 0 && o.inputs[i] < static_cast<int>(plan.buffers.size()), "[epoch] input ", i,
          " names no buffer");
    const Buffer& buffer = plan.buffers[static_cast<std::size_t>(o.inputs[i])];
    check(source[i].rows == source[0].rows, "[epoch] arrays of ", source[0].rows, " and ", source[i].rows,
          " rows");
    check(buffer.size.per_row == source[i].row_size && buffer.size.constant == 0, "[epoch] array ", i,
          " has ", source[i].row_size, " elements a row, its input ", buffer.size.per_row);
    check(convertible(source[i].type, buffer.dtype), "[epoch] array ", i, " has the wrong element type");
  }
  const int64 batches = ceil_div(source[0].rows, o.batch_size);
  check(o.before >= 0, "[epoch] ", o.before, " batches before the piece");
  check(!o.more || source[0].rows % o.batch_size == 0, "[epoch] a piece of ", source[0].rows,
        " rows that others follow, in batches of ", o.batch_size);
  check(o.n_params == 1 || o.n_params >= o.before + batches, "[epoch] ", o.n_params,
        " rows of step parameters for ", o.before + batches, " steps");
  check(o.accumulate >= 1, "[epoch] ", o.accumulate, " batches for an update");
  check(o.first_batch >= 0 && o.first_batch <= batches, "[epoch] batch ", o.first_batch, " of ", batches);
  return batches;
}

EpochResult run_epoch(Program& program, const std::vector<SourceArray>& source, ThreadTeam& team,
                      const EpochOptions& o) {
  const int64 batches = check_source(program.plan(), source, o);
  const Memory::Lease lease(program.memory());
  const Clock::time_point start = Clock::now();
  Clock::time_point now = start, next_poll = start + EpochOptions::kPollEvery;
  if (o.before + o.first_batch == 0) std::fill_n(program.metrics(), program.plan().metric_doubles, 0.0);

  const Plan& plan = program.plan();
  const int64 n = source[0].rows;
  const Permutation order(static_cast<std::uint64_t>(n), o.seed, o.run, o.epoch);
  Gather gather(find_isa(program.isa()));
  for (std::size_t i = 0; i < source.size(); ++i)
    gather.add(source[i], plan.buffers[static_cast<std::size_t>(o.inputs[i])].dtype, plan.real,
               program.address(o.inputs[i]));
  const auto copy_rows = [&](int64 task) { gather.run(task); };
  const bool gathers_beside = program.begins_without(o.inputs);
  ThreadTeam alone(1);
  TeamChoice& choice = program.team_choice();
  // Even a team that was asked for rests while it is slower than one thread, as on a busy machine.
  const bool choose = team.threads() > 1;
  choice.set_worthwhile(o.adaptive ? TeamChoice::kSavesAThird : 1.0);
  StepContext ctx;
  ctx.seed = o.seed;
  ctx.run = o.run;

  const int64 last = o.batches < 0 ? batches : std::min(batches, o.first_batch + o.batches);
  for (int64 batch = o.first_batch; batch < last; ++batch) {
    const int64 first = batch * o.batch_size, rows = std::min(o.batch_size, n - first);
    gather.choose(first, rows, o.shuffle ? &order : nullptr);
    const int64 place = o.before + batch;  // in the epoch
    ctx.step = o.step + static_cast<std::uint64_t>(place);
    program.set_params(ctx, o.params + (o.n_params == 1 ? 0 : place) * plan.params_width());
    ctx.first = place % o.accumulate == 0;
    ctx.last = (place + 1) % o.accumulate == 0 || (!o.more && batch + 1 == batches);
    const int64 begin = batch == o.first_batch ? o.begin : std::max(o.begin, plan.prepare);
    const int64 end = ctx.last ? o.end : std::min(o.end, plan.update);
    program.run(choose && !choice.team() ? alone : team, rows, begin, end, ctx,
                tasks_of(gather.tasks(), copy_rows), gathers_beside);
    copy_outputs(program, o, first, rows);
    const int64 done = batch + 1 - o.first_batch;

    const Clock::time_point before = now;
    now = Clock::now();
    const bool usual =
        o.accumulate == 1 || !ctx.last;  // steps of one length only: with the update, or without
    if (choose && rows == o.batch_size && usual) choice.took(seconds(now - before));
    if (o.check_finite && diverged(program)) return {done, EpochStatus::kDiverged};
    if (batch + 1 == last) break;
    if (o.stop != nullptr && o.stop->load(std::memory_order_relaxed)) return {done, EpochStatus::kStopped};
    if (o.deadline_s >= 0.0 && seconds(now - start) >= o.deadline_s) return {done, EpochStatus::kTime};
    if (now >= next_poll) {
      next_poll = now + EpochOptions::kPollEvery;
      if (o.poll && o.poll()) return {done, EpochStatus::kStopped};
    }
  }
  return {last - o.first_batch, last < batches ? EpochStatus::kPaused : EpochStatus::kDone};
}

}  // namespace hotloop
