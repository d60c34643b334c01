// SPDX-License-Identifier: Apache-2.0
// Calls on a team or alone: each does its work once, and both ways are seen again and again.
#include "runtime/team_calls.h"

#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using hotloop::int64;

struct Seen {
  int on_team = 0, alone = 0;
};

// So many calls of two pieces, of the times given in microseconds.
Seen calls(hotloop::TeamCalls& team_calls, hotloop::ThreadTeam* team, const void* kernel, int count,
           int piece_us, int alone_us) {
  const auto sleep = [](int us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); };
  Seen seen;
  for (int i = 0; i < count; ++i) {
    std::vector<int> done(2, 0);
    bool alone = false;
    team_calls.run(
        team, kernel, 7, 2,
        [&](int64 piece) {
          ++done[static_cast<std::size_t>(piece)];
          sleep(piece_us);
        },
        [&] {
          alone = true;
          for (int& n : done) ++n;
          sleep(alone_us);
        });
    CHECK(done[0] == 1 && done[1] == 1);
    ++(alone ? seen.alone : seen.on_team);
  }
  return seen;
}

void one_thread_works_alone() {
  hotloop::TeamCalls team_calls;
  hotloop::ThreadTeam one(1);
  CHECK(calls(team_calls, nullptr, &one, 3, 0, 0).alone == 3);
  CHECK(calls(team_calls, &one, &one, 3, 0, 0).alone == 3);
}

void a_faster_team_works_and_is_compared_rarely() {
  hotloop::TeamCalls team_calls;
  hotloop::ThreadTeam team(2);
  const Seen seen =
      calls(team_calls, &team, &team, 100, 50, 20000);  // a slice of another process is short beside it
  CHECK(seen.alone == 4);                               // after 4, 8, 16 and 32 calls; the next one after 64
  CHECK(seen.on_team == 96);
}

void a_slower_team_rests() {
  hotloop::TeamCalls team_calls;
  hotloop::ThreadTeam team(2);
  calls(team_calls, &team, &team, 10, 20000, 50);
  CHECK(calls(team_calls, &team, &team, 100, 20000, 50).on_team <= 1);
}

}  // namespace

int main() {
  one_thread_works_alone();
  a_faster_team_works_and_is_compared_rarely();
  a_slower_team_rests();
  return test::report("team_calls");
}
