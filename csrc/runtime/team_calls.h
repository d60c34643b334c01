// SPDX-License-Identifier: Apache-2.0
// Single calls on a team, as of hotloop.ops, which must not be slower than on the caller alone, also on a
// busy machine: where they are, the team rests (team_rest.h). What a call takes alone is known from calls
// like it, for a loop makes the same few again and again, and now and then one of them runs alone to tell.
// Before that the caller's share of the pieces tells, but not where memory is what both ways wait for.
#pragma once

#include <algorithm>
#include <array>

#include "core/types.h"
#include "cpu/thread_team.h"
#include "runtime/team_rest.h"

namespace hotloop {

class TeamCalls {
 public:
  // Those of the calling thread, which is the team's caller as well.
  static TeamCalls& here();

  // work(0) ... work(pieces - 1) on the team, or all at once by alone(), to the same bits; `team` may be
  // null. Calls of one kernel (any address) and size take equally long.
  template <class Work, class Alone>
  void run(ThreadTeam* team, const void* kernel, int64 size, int64 pieces, const Work& work,
           const Alone& alone) {
    if (team == nullptr || team->threads() == 1) return alone();
    const double begin = now();
    Known& call = known(team, kernel, size);
    if (!call.rest.over(begin) || !rest_.over(begin) || call.left == 0) {
      alone();
      return call.took_alone(now() - begin);
    }
    --call.left;
    // Processor time, because another process, or a member of the team, may have had the caller's processor.
    ThreadTeam::Shares shares;
    const double used = processor_time();
    team->run(pieces, work, &shares);
    const double end = now(), own = processor_time() - used - shares.waited;
    const double share = static_cast<double>(shares.own) / static_cast<double>(pieces);
    if (call.alone == 0.0 && share == 0.0) return;
    const double seconds = end - begin, expected = call.alone > 0.0 ? call.alone : own / share;
    call.rest.ended(seconds, expected, end);
    // Only a member that was put aside costs that much: whatever comes next had better wait as well.
    if (seconds - expected > kPutAside) rest_.ended(seconds, expected, end);
  }

 private:
  struct Known {
    const ThreadTeam* team = nullptr;
    const void* kernel = nullptr;
    int64 size = 0;
    TeamRest rest;
    double alone = 0.0;                    // seconds, a mean over the last few; 0: not known yet
    int64 between = 4, left = between;     // calls on the team before the next one alone
    static constexpr int64 kBetween = 64;  // in the end: 1.5 % of the time where a team is twice as fast

    void took_alone(double seconds) {
      alone = alone == 0.0 ? seconds : alone + (std::min(seconds, 2.0 * alone) - alone) / 4.0;
      between = std::min(2 * between, kBetween);
      left = between;
    }
  };
  static constexpr double kPutAside = 1e-3;  // seconds; a time slice is 3 or 4
  static constexpr std::size_t kKnown = 16;  // a call that takes another's place is new

  static double now();             // seconds
  static double processor_time();  // of this thread, seconds
  Known& known(const ThreadTeam* team, const void* kernel, int64 size);

  TeamRest rest_;
  std::array<Known, kKnown> known_;
};

}  // namespace hotloop
