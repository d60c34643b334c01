// SPDX-License-Identifier: Apache-2.0
#include "cpu/thread_team.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/cpu_count.h"
#include "cpu/fp_mode.h"

namespace hotloop {
namespace {

// About 50 us of pauses: longer than the single-threaded stretches between phases of a step, shorter than
// a scheduler's time slice, so that an idle team gives its cores back.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");  // takes as long as x86's pause; yield does nothing on most processors
#endif
}

// A ticket holds the number of the phase and how many of its chunks nobody has claimed yet.
constexpr std::uint64_t kRemaining = 0xFFFFFFFFu;
constexpr std::uint64_t kPhase = std::uint64_t{1} << 32;

}  // namespace

// A line that passes from one core to another costs some 50 ns, and a phase of a small network lasts a
// microsecond: so a phase is announced by one line, and its end by another.
struct ThreadTeam::Shared {
  alignas(64) std::atomic<std::uint64_t> ticket{0};
  // The work of the phase. Written while no chunk is outstanding, read only after claiming one.
  Call call = nullptr;
  const void* work = nullptr;
  // Chunks that members have done since the team began; of a phase in one addition for each member.
  alignas(64) std::atomic<std::int64_t> done{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;

  struct Member {
    std::thread thread;
    // Under the mutex:
    bool is_asleep = true;  // or not yet running
    bool is_sent = false;   // to other processors than the caller's, by a mask that it is to undo
    cpu_set_t usual = {};   // its mask before
  };
  std::vector<Member> members;

  // A scheduler may put who is woken behind the caller, on its processor, though another is idle, and move it
  // only milliseconds later: so for its waking a member may run anywhere but there. Under the mutex.
  void send_away_sleepers() {
    const int here = sched_getcpu();
    if (here < 0) return;
    for (Member& member : members) {
      if (!member.is_asleep || member.is_sent) continue;
      const pthread_t thread = member.thread.native_handle();
      if (pthread_getaffinity_np(thread, sizeof member.usual, &member.usual) != 0) continue;
      cpu_set_t others = member.usual;
      CPU_CLR(static_cast<std::size_t>(here), &others);
      member.is_sent = CPU_COUNT(&others) > 0 && pthread_setaffinity_np(thread, sizeof others, &others) == 0;
    }
  }

  void sleep_while(Member& member, const auto& idle) {
    std::unique_lock<std::mutex> lock(mutex);
    member.is_asleep = true;
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    wake.wait(lock, [&] { return !idle(); });
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
    awake(member, std::move(lock));
  }

  void awake(Member& member, std::unique_lock<std::mutex> lock) {
    member.is_asleep = false;
    if (!std::exchange(member.is_sent, false)) return;
    const cpu_set_t usual = member.usual;
    lock.unlock();
    pthread_setaffinity_np(pthread_self(), sizeof usual, &usual);
  }

  // Claims and runs chunks until the present phase has none left, and returns how many. `seen`: the last
  // ticket.
  std::int64_t work_off(std::uint64_t& seen) {
    std::int64_t ran = 0;
    seen = ticket.load(std::memory_order_acquire);
    while ((seen & kRemaining) != 0) {
      // Success means that this phase cannot end before this chunk is done, so call and work stay valid.
      if (ticket.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
        const auto chunk = static_cast<std::int64_t>((seen & kRemaining) - 1);
        call(work, chunk);
        ++ran;
        if (chunk == 0) break;  // the last one: no look at a line that others may hold
        seen = ticket.load(std::memory_order_acquire);
      }
    }
    return ran;
  }
};

ThreadTeam::ThreadTeam(int threads) : threads_(threads < 1 ? 1 : threads) {
  // More members than processors: spinning steals work time. A team of one never waits, and is made for
  // every epoch, so it does not ask: the answer costs several system calls.
  spins_ = threads_ > 1 && threads_ > cpu_count() ? 0 : kSpins;
}

ThreadTeam::~ThreadTeam() {
  if (shared_ == nullptr) return;
  if (owner_pid_ != getpid()) {
    // A forked child has the objects of its parent's threads but not the threads: nothing to join.
    [[maybe_unused]] const Shared* leaked = shared_.release();
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stop.store(true);
  }
  shared_->wake.notify_all();
  for (Shared::Member& member : shared_->members) member.thread.join();
}

void ThreadTeam::start() {
  const long pid = getpid();
  if (shared_ != nullptr && owner_pid_ == pid) return;
  [[maybe_unused]] const Shared* leaked = shared_.release();  // null, or the parent's: see the destructor
  shared_ = std::make_unique<Shared>();
  owner_pid_ = pid;
  done_ = 0;
  shared_->members.resize(static_cast<std::size_t>(threads_ - 1));
  for (std::size_t i = 0; i < shared_->members.size(); ++i)
    shared_->members[i].thread =
        std::thread([shared = shared_.get(), i, spins = spins_] { member_loop(*shared, i, spins); });
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->send_away_sleepers();
}

void ThreadTeam::run_phase(std::int64_t chunks, Call call, const void* work, Shares* shares) {
  start();
  Shared& s = *shared_;
  s.call = call;
  s.work = work;
  const std::uint64_t phase = (s.ticket.load(std::memory_order_relaxed) & ~kRemaining) + kPhase;
  // The caller claims its first chunk as it announces the phase. Sequentially consistent with the members'
  // sleepers++ and look at the ticket: one of both sees the other.
  s.ticket.store(phase | static_cast<std::uint64_t>(chunks - 1), std::memory_order_seq_cst);
  if (s.sleepers.load(std::memory_order_seq_cst) > 0) {
    const std::lock_guard<std::mutex> lock(s.mutex);
    s.send_away_sleepers();
    s.wake.notify_all();
  }
  call(work, chunks - 1);
  std::uint64_t seen = 0;
  const std::int64_t own = 1 + s.work_off(seen);
  done_ += chunks - own;  // when the phase has ended
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = shares != nullptr ? Clock::now() : Clock::time_point();
  for (int i = 0; s.done.load(std::memory_order_acquire) != done_; ++i) {
    if (i < spins_)
      pause();
    else
      std::this_thread::yield();
  }
  if (shares != nullptr) *shares = {own, std::chrono::duration<double>(Clock::now() - begin).count()};
}

void ThreadTeam::member_loop(Shared& s, std::size_t number, int spins) {
  const FlushDenormals flush;  // for the life of this thread: it runs nothing but kernels
  Shared::Member& self = s.members[number];
  s.awake(self, std::unique_lock<std::mutex>(s.mutex));
  std::uint64_t seen = 0;
  while (true) {
    const auto idle = [&] {
      return (s.ticket.load(std::memory_order_seq_cst) & ~kRemaining) == (seen & ~kRemaining) &&
             !s.stop.load();
    };
    for (int i = 0; i < spins && idle(); ++i) pause();
    if (idle()) s.sleep_while(self, idle);
    if (s.stop.load()) return;
    if (const std::int64_t ran = s.work_off(seen); ran > 0) s.done.fetch_add(ran, std::memory_order_release);
  }
}

}  // namespace hotloop
