// SPDX-License-Identifier: Apache-2.0
// Whether a team should work or rest, for calls of unlike length (steps of equal length: team_choice.h). A
// member that the system has put aside holds a piece for a whole time slice; if the call took longer for it
// than alone, the caller works alone until the loss has become a twentieth at most.
#pragma once

namespace hotloop {

class TeamRest {
 public:
  // Whether the team should work, `now` (seconds of any clock) being the time.
  bool over(double now) const { return now >= until_; }

  // A call on the team, which would have taken `alone`, took `seconds` and ended at `now`.
  void ended(double seconds, double alone, double now) {
    if (seconds > alone) until_ = now + kShare * (seconds - alone);
  }

 private:
  static constexpr double kShare = 20.0;
  double until_ = 0.0;
};

}  // namespace hotloop
