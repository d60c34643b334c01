// SPDX-License-Identifier: Apache-2.0
// The thread team under load: every chunk runs once, what a phase wrote is seen by the next, idle teams end,
// more members than processors work, and a forked child can use its copy. Built with ThreadSanitizer in CI.
#include "cpu/thread_team.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "check.h"

namespace {

// Phases of a chain in which each reads its neighbour's value of the phase before: a lost or repeated
// chunk, or a missing happens-before edge, changes the result (and is a data race for TSan).
bool chain_is_right(int threads, std::int64_t chunks, int phases) {
  hotloop::ThreadTeam team(threads);
  std::vector<std::int64_t> from(static_cast<std::size_t>(chunks)), to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::int64_t>(i);
  for (int phase = 0; phase < phases; ++phase) {
    team.run(chunks, [&](std::int64_t chunk) {
      to[static_cast<std::size_t>(chunk)] = from[static_cast<std::size_t>((chunk + 1) % chunks)] + 1;
    });
    from.swap(to);
  }
  for (std::int64_t i = 0; i < chunks; ++i)
    if (from[static_cast<std::size_t>(i)] != (i + phases) % chunks + phases) return false;
  return true;
}

bool every_chunk_once(int threads, std::int64_t chunks) {
  hotloop::ThreadTeam team(threads);
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(chunks));
  team.run(chunks, [&](std::int64_t chunk) { ++runs[static_cast<std::size_t>(chunk)]; });
  for (const auto& count : runs)
    if (count != 1) return false;
  return true;
}

bool teams_side_by_side() {
  bool right[4] = {};
  std::vector<std::thread> callers;
  for (bool& result : right) callers.emplace_back([&result] { result = chain_is_right(2, 9, 200); });
  for (std::thread& caller : callers) caller.join();
  return right[0] && right[1] && right[2] && right[3];
}

// ThreadSanitizer does not follow threads into a forked child, and qemu-user cannot fork a process that has
// them.
#if !defined(__SANITIZE_THREAD__) && !defined(HOTLOOP_EMULATED)
#define HOTLOOP_HAS_FORK
bool child_can_use_the_team() {
  hotloop::ThreadTeam team(3);
  std::atomic<int> before{0};
  team.run(8, [&](std::int64_t) { ++before; });
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> ran{0};
    team.run(64, [&](std::int64_t) { ++ran; });
    _exit(ran == 64 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::atomic<int> after{0};
  team.run(64, [&](std::int64_t) { ++after; });
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 && after == 64;
}
#endif

}  // namespace

int main() {
  for (const int threads : {1, 2, 3, 7}) {
    CHECK(every_chunk_once(threads, 0));
    CHECK(every_chunk_once(threads, 1));
    CHECK(every_chunk_once(threads, 1000));
    CHECK(chain_is_right(threads, 2, 2000));
    CHECK(chain_is_right(threads, 37, 500));
  }
  for (int i = 0; i < 200; ++i) CHECK(every_chunk_once(4, 5));  // starting and ending teams
  CHECK(teams_side_by_side());
#if defined(HOTLOOP_HAS_FORK)
  CHECK(child_can_use_the_team());
#endif
  return test::report("thread_team");
}
