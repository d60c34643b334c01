// SPDX-License-Identifier: Apache-2.0
// Whether a team should work or rest, for calls of unlike length (steps of equal length: team_choice.h). The
// pieces of a call are alike, so those that the caller did itself tell what it would have taken alone. A
// member that the system has put aside holds a piece for a whole time slice; if the call took longer for it
// than alone, the caller works alone until the loss has become a twentieth at most.
#pragma once

#include <algorithm>

namespace hotloop {

class TeamRest {
 public:
  // Whether the team should work, `now` (seconds of any clock) being the time.
  bool over(double now) const { return now >= until_; }

  // A call of `seconds` ended at `now`: the caller did `share` of its pieces in `own` seconds of processor
  // time.
  void ended(double seconds, double own, double share, double now) {
    if (share <= 0.0) return;
    const double lost = seconds - own / share;
    if (lost > 0.0) until_ = now + kShare * lost;
  }

 private:
  static constexpr double kShare = 20.0;
  double until_ = 0.0;
};

}  // namespace hotloop
