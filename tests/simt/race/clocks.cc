// SPDX-License-Identifier: Apache-2.0
// The rules of order; see clocks.h.
#include "simt/race/clocks.h"

#include <algorithm>
#include <utility>

#include "simt/race.h"

namespace hotloop::simt::race {
namespace {

std::uint32_t number_of(const Thread& t) { return t.warp * kLanes + t.lane; }
std::uint32_t me() { return number_of(*machine.current); }
std::uint32_t epoch_now() { return static_cast<std::uint32_t>(machine.block.epoch); }
std::uint32_t block_now() { return static_cast<std::uint32_t>(block_serial); }

}  // namespace

void Clocks::begin_launch(std::vector<BlockRange> unordered) {
  unordered_ = std::move(unordered);
  first_block_ = block_now() + 1;
  counters_.clear();
}

void Clocks::begin_block() {
  lanes_.assign(machine.block.threads.size(), Lane{.seen = {},
                                                   .stamp = 1,
                                                   .fences = 0,
                                                   .fences_before = 0,
                                                   .fence_epoch = 0,
                                                   .seen_at_fence = {},
                                                   .has_fenced = false});
  meetings_.assign(machine.block.warps.size(), 1);
  acquired_.clear();
}

void Clocks::meet(unsigned warp, unsigned lanes) {
  const std::uint32_t meeting = ++meetings_[warp];
  Lane* const first = &lanes_[warp * kLanes];
  Seen all{};
  for (unsigned i = 0; i < kLanes; ++i)
    if (lanes >> i & 1)
      for (unsigned o = 0; o < kLanes; ++o) all[o] = std::max(all[o], first[i].seen[o]);
  for (unsigned i = 0; i < kLanes; ++i)
    if (lanes >> i & 1) all[i] = meeting - 1;
  for (unsigned i = 0; i < kLanes; ++i)
    if (lanes >> i & 1) {
      first[i].seen = all;
      first[i].stamp = meeting;
    }
}

void Clocks::fence() {
  Lane& l = lanes_[me()];
  if (l.fence_epoch != epoch_now()) {
    l.fences_before = l.fences;
    l.fence_epoch = epoch_now();
  }
  ++l.fences;
  l.seen_at_fence = l.seen;
  l.has_fenced = true;
}

void Clocks::use_counter(const void* counter) {
  Counter& c = counters_[counter];
  const Lane& l = lanes_[me()];
  acquired_.push_back({&c, c.uses, me(), epoch_now(), l.stamp});
  Release r{c.uses++, me(), epoch_now(), l.fence_epoch, l.has_fenced, l.seen, l.seen_at_fence, {}};
  r.fences.reserve(lanes_.size());
  for (std::size_t i = 0; i < lanes_.size(); ++i)
    r.fences.push_back(i == me() ? l.fences : lanes_[i].known_fences(epoch_now()));
  c.by_block[block_now()] = std::move(r);
}

Access Clocks::now() const {
  const Lane& l = lanes_[me()];
  return {block_now(), epoch_now(), l.stamp, l.fences, 0, static_cast<std::uint16_t>(me()), 0, 0};
}

bool Clocks::within_block(std::uint32_t thread, std::uint32_t epoch, std::uint32_t stamp) const {
  if (thread == me() || epoch < epoch_now()) return true;
  return thread / kLanes == me() / kLanes && stamp <= lanes_[me()].seen[thread % kLanes];
}

bool Clocks::Release::covers(const Access& a, bool needs_fence) const {
  const bool same_warp = a.thread / kLanes == thread / kLanes;
  const unsigned lane_of = a.thread % kLanes;
  if (a.thread != thread && a.epoch >= epoch && !(same_warp && a.stamp <= seen[lane_of])) return false;
  if (!needs_fence || fences[a.thread] > a.fences) return true;
  // A fence of the releasing thread's own counts for all it knew of then.
  return has_fenced && (a.epoch < fence_epoch || (same_warp && a.stamp <= seen_at_fence[lane_of]));
}

bool Clocks::is_over(const Access& a) const {
  return !of_this_launch(a) && std::none_of(unordered_.begin(), unordered_.end(), [&](const BlockRange& r) {
    return a.block >= r.begin && a.block < r.end;
  });
}

bool Clocks::knows(const Access& a, bool written) const {
  if (!of_this_launch(a)) return is_over(a);
  if (a.block == block_now()) return within_block(a.thread, a.epoch, a.stamp);
  const bool needs_fence = written && a.kind != static_cast<std::uint8_t>(Kind::kAtomic);
  return std::any_of(acquired_.begin(), acquired_.end(), [&](const Acquired& q) {
    if (!within_block(q.thread, q.epoch, q.stamp)) return false;
    const auto found = q.counter->by_block.find(a.block);
    return found != q.counter->by_block.end() && found->second.place < q.uses &&
           found->second.covers(a, needs_fence);
  });
}

bool Clocks::knows_all(const Access& a, std::uint32_t lanes) const {
  if (!of_this_launch(a) || a.block != block_now() || a.epoch < epoch_now()) return knows(a, false);
  if (a.thread / kLanes != me() / kLanes) return false;
  for (unsigned i = 0; i < kLanes; ++i)
    if (lanes >> i & 1 && i != me() % kLanes && a.stamp > lanes_[me()].seen[i]) return false;
  return true;
}

}  // namespace hotloop::simt::race
