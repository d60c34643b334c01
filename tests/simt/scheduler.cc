// SPDX-License-Identifier: Apache-2.0
// The threads of a block on as many fibers as wait at the same time. A fiber runs one thread after the other
// and is kept by the first that has to wait, so a kernel without barriers runs as a plain loop. Whoever
// completes a barrier or a warp's collective goes on at once.
#include <algorithm>
#include <utility>

#include "simt/machine.h"
#include "simt/race.h"

namespace hotloop::simt {
namespace {

void take_over(Thread& thread) {
  machine.current = &thread;
  thread_index = thread.index;
  lane = static_cast<int>(thread.lane);
  warp = static_cast<int>(thread.warp);
}

void wait_as(State state, const Site& site) {
  Thread& t = *machine.current;
  t.state = state;
  t.site = site;
  t.fiber = machine.running;
  t.fiber->leave();
}

bool same_place(const Site& a, const Site& b) {
  return a.line == b.line && a.file == b.file && a.what == b.what;
}

// All that have not left the kernel stand at the barrier.
void open_barrier() {
  Block& b = machine.block;
  b.any_at[b.epoch & 1] = b.any;
  b.any = false;
  ++b.epoch;
  b.at_barrier = 0;
  for (Thread& t : b.threads)
    if (t.state == State::kAtBarrier) t.state = State::kReady;
}

// Runs the collective that `thread` waits in if nobody is missing any more.
bool complete(const Thread& thread) {
  Warp& w = machine.block.warps[thread.warp];
  const unsigned wanted = thread.mask & w.live;
  if (wanted & ~w.waiting) return false;
  if (thread.whole && w.live != ~0u)
    fault(thread.site, "needs all 32 lanes of the warp, of which some have left the kernel or never were");
  Thread* const first = &machine.block.threads[thread.warp * kLanes];
  void* mine[kLanes] = {};
  for (unsigned i = 0; i < kLanes; ++i) {
    if (!(wanted >> i & 1)) continue;
    const Thread& t = first[i];
    if (t.mask != thread.mask || t.all != thread.all || !same_place(t.site, thread.site))
      fault(thread.site, "lanes of one warp are in different operations: lane " + std::to_string(i) +
                             " of the mask is in " + text_of(t.site));
    mine[i] = t.mine;
  }
  thread.all(mine);
  w.waiting &= ~wanted;
  for (unsigned i = 0; i < kLanes; ++i)
    if (wanted >> i & 1) first[i].state = State::kReady;
  return true;
}

void enter_warp(const Site& site, unsigned mask, bool whole, void* mine, Collective all) {
  Thread& t = *machine.current;
  if (!(mask >> t.lane & 1))
    fault(site, "the mask does not name the lane that calls, lane " + std::to_string(t.lane));
  t.mask = mask;
  t.whole = whole;
  t.mine = mine;
  t.all = all;
  t.site = site;
  machine.block.warps[t.warp].waiting |= 1u << t.lane;
  if (!complete(t)) wait_as(State::kInWarp, site);
}

void finish_thread() {
  Block& b = machine.block;
  Thread& t = *machine.current;
  t.state = State::kDone;
  ++b.done;
  Warp& w = b.warps[t.warp];
  w.live &= ~(1u << t.lane);
  // Who waits for this lane need not wait any longer.
  for (unsigned left = w.waiting; left;) {
    const auto i = static_cast<unsigned>(__builtin_ctz(left));
    left &= ~(1u << i);
    const Thread& other = b.threads[t.warp * kLanes + i];
    if (other.mask >> t.lane & 1 && complete(other)) left &= w.waiting;
  }
  if (b.at_barrier && b.at_barrier + b.done == b.threads.size()) open_barrier();
}

// What every fiber runs: threads until none is left to be started.
void work() {
  Block& b = machine.block;
  for (;;) {
    while (b.started < b.order.size()) {
      Thread& t = b.threads[b.order[b.started++]];
      take_over(t);
      t.state = State::kReady;
      (*machine.body)();
      finish_thread();
    }
    machine.idle.push_back(machine.running);
    machine.running->leave();
  }
}

// Leaves all stacks as they are, never to be gone back to.
[[noreturn]] void give_up(const std::string& text) {
  machine.idle.clear();
  for (const auto& f : machine.fibers) {
    f->abandon();
    machine.idle.push_back(f.get());
  }
  machine.fault.clear();
  throw Fault(text);
}

// Lets a fiber run until somebody on it waits.
void resume(Fiber* fiber) {
  machine.running = fiber;
  fiber->enter(work);
  machine.current = nullptr;
  if (!machine.fault.empty()) give_up(std::string(machine.fault));
}

Fiber* idle_fiber() {
  if (machine.idle.empty()) {
    machine.fibers.push_back(std::make_unique<Fiber>());
    return machine.fibers.back().get();
  }
  Fiber* const f = machine.idle.back();
  machine.idle.pop_back();
  return f;
}

// Nobody can go on: who waits where, each place once, with how many threads.
std::string deadlock() {
  std::string text = "[" + std::string(machine.launch.name) + "] deadlock in block " + text_of(block_index);
  std::vector<const Thread*> seen;
  for (const Thread& t : machine.block.threads) {
    const auto waits_there = [&](const Thread& o) {
      return o.state != State::kDone && same_place(o.site, t.site) && o.mask == t.mask;
    };
    if (t.state == State::kDone ||
        std::any_of(seen.begin(), seen.end(), [&](auto* o) { return waits_there(*o); }))
      continue;
    seen.push_back(&t);
    const auto n = std::count_if(machine.block.threads.begin(), machine.block.threads.end(), waits_there);
    text += (seen.size() == 1 ? ": " : "; ") + std::to_string(n) + " threads from " + text_of(t.index) +
            " on wait in " + text_of(t.site);
  }
  return text + "; " + std::to_string(machine.block.done) + " have left the kernel";
}

void begin_block() {
  Block& b = machine.block;
  b.started = b.done = b.at_barrier = 0;
  b.epoch = 0;
  b.any = false;
  for (Thread& t : b.threads) {
    t.state = State::kWaitsToStart;
    t.copies.clear();
    t.groups.clear();
  }
  const auto threads = static_cast<unsigned>(b.threads.size());
  for (unsigned i = 0; i < b.warps.size(); ++i) {
    const unsigned lanes = std::min(kLanes, threads - i * kLanes);
    b.warps[i] = {lanes == kLanes ? ~0u : (1u << lanes) - 1, 0};
  }
  ++block_serial;
  race::begin_block();
}

}  // namespace

void run_block() {
  Block& b = machine.block;
  const bool random = machine.mode.order == Order::kRandom;
  begin_block();
  open_shared();
  if (random) shuffle(b.order);
  while (b.started < b.threads.size()) resume(idle_fiber());
  while (b.done < b.threads.size()) {
    bool moved = false;
    if (random) shuffle(b.order);
    for (const unsigned i : b.order) {
      Thread& t = b.threads[i];
      if (t.state != State::kReady) continue;
      moved = true;
      take_over(t);
      resume(t.fiber);
    }
    if (!moved) give_up(deadlock());
  }
  close_shared();
}

void give_up_launch(const std::string& text) {
  if (!machine.current) give_up(text);
  machine.fault = text;
  machine.running->leave();
  std::abort();
}

void fault(const Site& site, const std::string& what) {
  give_up_launch("[" + std::string(machine.launch.name) + "] block " + text_of(block_index) + ", thread " +
                 text_of(thread_index) + ", " + text_of(site) + ": " + what);
}

void block_barrier(const Site& site) {
  Block& b = machine.block;
  if (b.at_barrier == 0)
    b.barrier = site;
  else if (!same_place(b.barrier, site))
    fault(site, "divergent barrier: other threads of the block are at " + text_of(b.barrier));
  if (++b.at_barrier + b.done == b.threads.size())
    open_barrier();
  else
    wait_as(State::kAtBarrier, site);
}

bool block_barrier_or(const Site& site, bool any) {
  Block& b = machine.block;
  const std::uint64_t epoch = b.epoch;
  b.any = b.any || any;
  block_barrier(site);
  return b.any_at[epoch & 1];
}

void warp_collective(const Site& site, unsigned mask, void* mine, Collective all) {
  enter_warp(site, mask, false, mine, all);
}

void whole_warp(const Site& site, void* mine, Collective all) { enter_warp(site, ~0u, true, mine, all); }

void warp_barrier(const Site& site, unsigned mask) {
  bool here = true;
  warp_collective(site, mask, &here, [](Lanes mine) {
    unsigned lanes = 0;
    for (unsigned i = 0; i < kLanes; ++i)
      if (mine[i]) lanes |= 1u << i;
    race::met(static_cast<unsigned>(warp), lanes);
  });
}

}  // namespace hotloop::simt
