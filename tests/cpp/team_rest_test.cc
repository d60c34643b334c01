// SPDX-License-Identifier: Apache-2.0
// When a team rests, fed with made-up times; and that a team tells how long its caller waited.
#include "runtime/team_rest.h"

#include <chrono>
#include <thread>

#include "check.h"
#include "cpu/thread_team.h"

namespace {

// Seconds of so many calls, each of `alone` seconds on one thread; on the team the caller does a share and
// waits.
double calls(hotloop::TeamRest& rest, double alone, double share, double wait, int count) {
  double now = 1.0;
  for (int i = 0; i < count; ++i) {
    const bool team = rest.over(now);
    const double seconds = team ? alone * share + wait : alone;
    now += seconds;
    if (team) rest.ended(seconds, alone, now);
  }
  return now - 1.0;
}

void a_busy_machine_costs_a_twentieth() {
  for (const double alone : {100e-6, 1e-3, 20e-3}) {
    for (const double wait : {0.6 * alone, 4e-3, 100e-3}) {
      hotloop::TeamRest rest;
      calls(rest, alone, 0.5, wait, 1);  // the first has nothing to be paid from
      CHECK(calls(rest, alone, 0.5, wait, 20000) <= 1.06 * 20000 * alone + wait);
    }
  }
}

void a_quiet_machine_never_rests() {
  hotloop::TeamRest rest;
  CHECK(calls(rest, 1e-3, 2.0 / 3.0, 300e-6, 1000) <= 1000 * 0.97e-3);  // three pieces for two
  CHECK(calls(rest, 1e-3, 0.0, 900e-6, 1000) <= 1000 * 0.91e-3);        // others were there first
}

// Whoever has the second piece takes 20 ms longer for it than the caller for what is left.
void waiting_is_measured() {
  hotloop::ThreadTeam team(2);
  const auto caller = std::this_thread::get_id();
  const auto sleep = [](int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
  for (int tries = 0; tries < 20; ++tries) {  // until the other member takes part
    bool shared = false;
    hotloop::ThreadTeam::Shares shares;
    const auto work = [&](std::int64_t) {
      if (std::this_thread::get_id() == caller) {
        sleep(10);
      } else {
        shared = true;
        sleep(40);
      }
    };
    team.run(2, work, &shares);
    if (!shared) continue;
    CHECK(shares.own == 1);
    CHECK(shares.waited > 10e-3);
    CHECK(shares.waited < 1.0);
    team.run(1, [](std::int64_t) {}, &shares);
    CHECK(shares.own == 1);
    CHECK(shares.waited == 0.0);
    return;
  }
  CHECK(false);
}

}  // namespace

int main() {
  a_busy_machine_costs_a_twentieth();
  a_quiet_machine_never_rests();
  waiting_is_measured();
  return test::report("team_rest");
}
