// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_epoch.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace hotloop {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64 kMostBatches = 32;        // of a graph: its launch is then 1/32 of one batch's
constexpr double kMostSeconds = 25e-3;    // of a graph, two of which may be under way when somebody says stop
constexpr std::size_t kMostCalls = 1024;  // of a graph: making one takes some microseconds for each
constexpr int kInFlight = DeviceProgram::kLanes;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

class Pass {
 public:
  Pass(DeviceProgram& program, DeviceSource& source, const EpochOptions& o, int64 batches)
      : program_(program),
        plan_(program.plan()),
        o_(o),
        n_(source.rows()),
        batches_(batches),
        last_(o.batches < 0 ? batches : std::min(batches, o.first_batch + o.batches)),
        order_(static_cast<std::uint64_t>(n_), o.seed, o.run, o.epoch),
        feeder_(source, program.queue(), program.step(), o.shuffle ? &order_ : nullptr, outs(), o.batch_size,
                o.first_batch, last_) {
    std::size_t bytes = sizeof(int64);
    for (const EpochOutput& output : o.outputs)
      if (!output.on_device) bytes += row_bytes(output) * static_cast<std::size_t>(o.batch_size);
    for (int i = 0; i < kInFlight; ++i) slots_[i].lane = &program.lane(i, bytes);
  }
  // Nothing of what this owns may be in use any more.
  ~Pass() { (void)program_.device()->api().stream_wait(program_.queue().stream()); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  EpochResult run() {
    start_ = Clock::now();
    if (o_.before + o_.first_batch == 0) std::fill_n(program_.metrics(), plan_.metric_doubles, 0.0);
    begin_ = program_.begin_steps(o_.begin, o_.end);
    program_.start(step_block(), o_.params, o_.n_params);
    EpochStatus status = launch_all();
    for (Slot& slot : slots_) collect(slot);
    const DeviceStep at = program_.finish();
    program_.end_steps(o_.begin, o_.end);
    int64 done = next_ - o_.first_batch;
    if (o_.check_finite && done > 0 && diverged(at)) {
      // Of a pass that began with totals that were not finite, the first batch is named, as on the CPU.
      if (at.diverged_at >= 0) done = std::max<int64>(1, at.diverged_at + 1 - o_.before - o_.first_batch);
      status = EpochStatus::kDiverged;
    }
    return {done, status};
  }

 private:
  // What comes back from the launch before last: diverged_at, and rows of the outputs one after another.
  struct Slot {
    DeviceProgram::Lane* lane = nullptr;
    int64 first = 0, rows = 0;  // of the batches; no rows: nothing is on its way
  };

  std::vector<std::pair<void*, bool>> outs() const {
    std::vector<std::pair<void*, bool>> found;
    found.reserve(o_.inputs.size());
    for (const int input : o_.inputs)
      found.emplace_back(program_.address(input),
                         plan_.buffers[static_cast<std::size_t>(input)].dtype == DType::kIndex);
    return found;
  }

  DeviceStep step_block() {
    DeviceStep s;
    s.seed = o_.seed;
    s.run = o_.run;
    s.shuffle = o_.shuffle && feeder_.shuffles();
    s.more = o_.more;
    s.before = o_.before;
    s.place = o_.before + o_.first_batch - 1;
    s.batches = batches_;
    s.batch_size = o_.batch_size;
    s.rows = n_;
    s.first_step = o_.step;
    s.accumulate = o_.accumulate;
    s.network = order_.network();
    s.feeds = feeder_.feeds();
    if (o_.check_finite && plan_.metric_doubles >= 2)
      s.totals = reinterpret_cast<const double*>(program_.metrics_address());
    return s;
  }

  bool diverged(const DeviceStep& at) const {
    const double* totals = program_.metrics();
    return at.diverged_at >= 0 || !(std::isfinite(totals[0]) && std::isfinite(totals[1]));
  }

  int64 rows_of(int64 batch) const { return std::min(o_.batch_size, n_ - batch * o_.batch_size); }

  bool updates(int64 batch) const {
    return (o_.before + batch + 1) % o_.accumulate == 0 || (!o_.more && batch + 1 == batches_);
  }

  // Batches [next_, next_ + count), all of the same rows.
  DevicePass pass_of(int64 count) const {
    DevicePass pass{rows_of(next_), true, o_.inputs, {}};
    for (int64 batch = next_; batch < next_ + count; ++batch)
      pass.batches.emplace_back(batch == o_.first_batch ? begin_ : std::max(o_.begin, plan_.prepare),
                                updates(batch) ? o_.end : std::min(o_.end, plan_.update));
    return pass;
  }

  // How many batches a graph may hold, as far as time and size go.
  int64 most_batches() {
    if (!o_.outputs.empty() || program_.batch_seconds < 0.0) return 1;
    const std::size_t calls = program_.calls(o_.batch_size, o_.begin, o_.end).size() + 2;
    const int64 by_size = std::min(kMostBatches, static_cast<int64>(kMostCalls / calls));
    const double by_time = kMostSeconds / program_.batch_seconds;
    return by_time < 1.0 ? 1 : std::max<int64>(1, std::min(by_size, static_cast<int64>(by_time)));
  }

  // How many batches go next in one launch. Few different counts, since each is a graph of its own: an epoch
  // is cut into equal parts with less than one batch each left over, and updates lie where they lay before.
  int64 next_count(int64 most, int64 ready) const {
    const int64 full = std::min(last_, n_ / o_.batch_size);  // where batches of all rows end
    const bool prepares = next_ == o_.first_batch && begin_ < plan_.prepare;
    if (most <= 1 || prepares || full - next_ <= 1) return 1;
    const int64 all = full - o_.first_batch;
    int64 count = std::min(all / ceil_div(all, most), ready);
    const int64 in_group = (o_.before + next_) % o_.accumulate;
    if (in_group > 0 || o_.accumulate > count)
      count = std::min(count, o_.accumulate - in_group);
    else
      count -= count % o_.accumulate;
    return count <= full - next_ ? count : 1;
  }

  // What follows a launch in the queue: rows of the outputs to where they go, those for the host by way of
  // pinned memory.
  void follow(Slot& slot, int64 first, int64 rows) {
    const DeviceQueue& queue = program_.queue();
    std::byte* at = slot.lane->pinned.data();
    queue.copy(at, &program_.step()->diverged_at, sizeof(int64), CopyKind::kToHost);
    at += sizeof(int64);
    for (const EpochOutput& output : o_.outputs) {
      const std::size_t each = row_bytes(output), bytes = each * static_cast<std::size_t>(rows);
      const std::byte* from = program_.address(output.buffer);
      if (output.on_device) {
        queue.copy(output.data + static_cast<std::size_t>(first) * each, from, bytes, CopyKind::kOnDevice);
        continue;
      }
      queue.copy(at, from, bytes, CopyKind::kToHost);
      at += bytes;
    }
    slot.lane->done.set(queue);
    slot.first = first;
    slot.rows = rows;
  }

  // The host's part: waits for a launch, and hands its rows out.
  void collect(Slot& slot) {
    if (slot.rows == 0) return;
    slot.lane->done.wait();
    const std::byte* at = slot.lane->pinned.data();
    int64 place = -1;
    std::memcpy(&place, at, sizeof place);
    diverged_ |= place >= 0;
    at += sizeof place;
    for (const EpochOutput& output : o_.outputs) {
      if (output.on_device) continue;
      const std::size_t each = row_bytes(output), bytes = each * static_cast<std::size_t>(slot.rows);
      std::memcpy(output.data + static_cast<std::size_t>(slot.first) * each, at, bytes);
      at += bytes;
    }
    slot.rows = 0;
  }

  // The time of a batch, once for each program: of its second launch, because the first may load code.
  void time_batch(const DevicePass& pass) {
    constexpr double kLeast = 1e-7;  // what a clock may take for nothing
    DeviceMark begin(program_.device()), end(program_.device());
    begin.set(program_.queue());
    program_.launch(pass);
    end.set(program_.queue());
    end.wait();
    if (program_.is_warm && pass.rows == o_.batch_size)
      program_.batch_seconds = std::max(begin.seconds_until(end), kLeast);
    program_.is_warm = true;
  }

  EpochStatus launch_all() {
    Clock::time_point next_poll = start_ + EpochOptions::kPollEvery;
    next_ = o_.first_batch;
    for (std::size_t launches = 0; next_ < last_; ++launches) {
      const int64 ready = feeder_.ready(next_);
      const bool hurry = launches == 0 && (stopped() || late());
      const int64 count = hurry ? 1 : next_count(most_batches(), ready);
      Slot& slot = slots_[launches % kInFlight];
      collect(slot);
      const DevicePass pass = pass_of(count);
      if (program_.batch_seconds < 0.0)
        time_batch(pass);
      else
        program_.launch(pass);
      follow(slot, next_ * o_.batch_size, (count - 1) * o_.batch_size + rows_of(next_ + count - 1));
      next_ += count;
      feeder_.gather_ahead(count);
      // What is longer than a graph should be is waited for: then the launch itself is nothing beside it.
      if (program_.batch_seconds > kMostSeconds)
        collect(slot);
      else
        collect(slots_[(launches + 1) % kInFlight]);
      if (next_ >= last_) break;
      if (diverged_) return EpochStatus::kDiverged;
      if (stopped()) return EpochStatus::kStopped;
      if (late()) return EpochStatus::kTime;
      if (Clock::now() >= next_poll) {
        next_poll = Clock::now() + EpochOptions::kPollEvery;
        if (o_.poll && o_.poll()) return EpochStatus::kStopped;
      }
    }
    return last_ < batches_ ? EpochStatus::kPaused : EpochStatus::kDone;
  }

  bool stopped() const { return o_.stop != nullptr && o_.stop->load(std::memory_order_relaxed); }
  bool late() const { return o_.deadline_s >= 0.0 && seconds(Clock::now() - start_) >= o_.deadline_s; }

  std::size_t row_bytes(const EpochOutput& output) const {
    const Buffer& buffer = plan_.buffers[static_cast<std::size_t>(output.buffer)];
    return static_cast<std::size_t>(buffer.size.per_row) * dtype_bytes(buffer.dtype, plan_.real);
  }

  DeviceProgram& program_;
  const Plan& plan_;
  const EpochOptions& o_;
  int64 n_, batches_, last_;
  Permutation order_;
  DeviceFeeder feeder_;
  Slot slots_[kInFlight];
  Clock::time_point start_;
  int64 begin_ = 0;  // step of the plan that the first batch begins with
  int64 next_ = 0;   // batch to launch
  bool diverged_ = false;
};

}  // namespace

EpochResult run_epoch(DeviceProgram& program, DeviceSource& source, const EpochOptions& o) {
  const int64 batches = check_source(program.plan(), source.arrays(), o);
  check(&source.device().api() == &program.device()->api(), "[epoch] the source lies on another device");
  DeviceRun held(program);
  const EpochResult result = Pass(program, source, o, batches).run();
  held.finish();
  return result;
}

}  // namespace hotloop
