// SPDX-License-Identifier: Apache-2.0
// A team of threads that works through numbered chunks. The caller is its first member; the others are
// started on first need, sleep when idle, and are started anew in a forked child.
//
// Chunks are claimed from one counter, and a phase ends when its chunks are done, not when threads arrive:
// a member that the system has put aside delays nobody. Who runs a chunk never changes what it computes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace hotloop {

// Work in numbered pieces, by reference: whatever it refers to must outlive it.
struct Tasks {
  std::int64_t count = 0;
  void (*call)(const void* work, std::int64_t task) = nullptr;
  const void* work = nullptr;

  void run(std::int64_t task) const { call(work, task); }
};

// Pieces work(0), work(1), ... work(count - 1).
template <class Work>
Tasks tasks_of(std::int64_t count, const Work& work) {
  return {count, [](const void* w, std::int64_t task) { (*static_cast<const Work*>(w))(task); }, &work};
}

class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return threads_; }
  // How a run went for its caller: pieces it did itself, and seconds it waited for those of others.
  struct Shares {
    std::int64_t own = 0;
    double waited = 0.0;
  };

  // Calls work(chunk) once for every chunk in [0, chunks), on any member; returns when all are done.
  // `work` must not throw. One caller at a time. `shares`: who asks pays for the clock.
  template <class Work>
  void run(std::int64_t chunks, const Work& work, Shares* shares = nullptr) {
    if (threads_ == 1 || chunks <= 1) {
      if (shares != nullptr) *shares = {chunks, 0.0};
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) work(chunk);
      return;
    }
    run_phase(
        chunks, [](const void* w, std::int64_t chunk) { (*static_cast<const Work*>(w))(chunk); }, &work,
        shares);
  }

 private:
  using Call = void (*)(const void* work, std::int64_t chunk);
  struct Shared;

  void run_phase(std::int64_t chunks, Call call, const void* work, Shares* shares);
  void start();
  static void member_loop(Shared& shared, std::size_t number, int spins);

  int threads_;
  int spins_;
  long owner_pid_ = 0;
  std::int64_t done_ = 0;  // chunks of all phases so far that members did
  std::unique_ptr<Shared> shared_;
};

}  // namespace hotloop
