// SPDX-License-Identifier: Apache-2.0
// Which is faster at present, a step on the whole team or on the caller alone? Measured, not modelled: the
// answer depends on what else the machine is doing, and it changes. Results do not depend on it.
//
// Both ways are tried for a few steps, then the faster is kept until the time that trying the slower one
// cost has become a twentieth of the whole; then both are tried again. So a team whose second processor is
// busy costs 5 % at most over working alone. What wins again and again is kept up to eight times as long.
// Steps on the team tell when the machine gets busy: both are tried as soon as they take longer. Steps alone
// tell nothing of a processor that has become free, which is found within two seconds.
//
// Long steps begin on the team untried: it shares them by chunks, so that even beside a busy processor they
// take hardly longer than alone, and a step alone would be the dearest of a short run.
#pragma once

#include <algorithm>

namespace hotloop {

class TeamChoice {
 public:
  // Share of the time of working alone that a team may take at most. Below 1 where nobody asked for threads:
  // a processor that saves little time is better left to others.
  void set_worthwhile(double share) { worthwhile_ = share; }
  // Two threads that save a third take 1.3 times the processors' time at most, and commonly below 1.15, for a
  // long wait is asleep.
  static constexpr double kSavesAThird = 0.65;

  // Whether the next step should run on the whole team.
  bool team() const { return trying_ ? candidate_ : winner_; }

  // How long that step took. Only steps of equal size may be told.
  void took(double seconds) {
    if (!trying_) {
      held_ += seconds;
      recent_ += (std::min(seconds, 2.0 * median_[winner_]) - recent_) / kRecentSteps;
      const bool trusted = held_ < hold_ * trust_ && !slower_of_late();
      const bool was_interrupted = untried_ && seconds < kLongStep;  // its steps are short after all
      // The present one first: no thread has to be woken for it.
      if ((held_ >= hold_ && !trusted) || was_interrupted) try_candidate(winner_);
      return;
    }
    spent_[candidate_] += seconds;
    ++tried_[candidate_];
    if (candidate_ && count_ == 0 && spent_[1] < kWaking) return;
    if (count_ >= kSkipped) samples_[count_ - kSkipped] = seconds;
    // Next to a step as long as that an interruption is short; and so is the caller's warming up, if steps
    // are long on the team as well.
    const bool is_warm = count_ == kSkipped || (!candidate_ && median_[1] > 0.5 * kLongStep);
    const bool one_tells = seconds > kLongStep && is_warm;
    if (++count_ < kSkipped + kSampled && !one_tells) return;
    median_[candidate_] = one_tells ? seconds : median();
    if (one_tells && candidate_ && median_[0] == 0.0 && !untried_)
      keep_team();
    else if (candidate_ == first_)
      next_candidate();
    else
      decide();
  }

 private:
  // A team that slept needs some time to wake up, and a step; five samples have a median that one
  // interruption cannot move.
  static constexpr double kWaking = 0.2e-3;
  static constexpr int kSkipped = 1, kSampled = 5;
  // Working alone is held for a while only, however long the steps: of steps of 0.1 s one is tried, and if
  // that met a busy moment, 128 more would be 13 s without the team.
  static constexpr double kHoldSteps = 128.0, kAloneSeconds = 0.25, kHoldShare = 20.0;
  static constexpr double kLongStep = 20e-3;
  // A mean over about so many steps, each counted as twice the usual at most, does not follow one
  // interruption.
  static constexpr double kRecentSteps = 16.0, kSlower = 1.15, kMostTrust = 8.0;

  void try_candidate(bool team) {
    trying_ = true;
    candidate_ = first_ = team;
    count_ = 0;
    spent_[0] = spent_[1] = 0.0;
    tried_[0] = tried_[1] = 0;
  }

  void next_candidate() {
    candidate_ = !candidate_;
    count_ = 0;
  }

  // Until a step alone, which might take twice as long, would be a twentieth of the whole.
  void keep_team() {
    trying_ = false;
    untried_ = true;
    held_ = 0.0;
    recent_ = median_[1];
    hold_ = kHoldShare * median_[1];
  }

  bool slower_of_late() const { return winner_ && recent_ >= kSlower * median_[1]; }

  double median() {
    std::sort(samples_, samples_ + kSampled);
    return samples_[kSampled / 2];
  }

  void decide() {
    const bool before = winner_;
    winner_ = median_[1] < worthwhile_ * median_[0];
    trust_ = winner_ == before && !slower_of_late() ? std::min(2.0 * trust_, kMostTrust) : 1.0;
    trying_ = untried_ = false;
    held_ = 0.0;
    recent_ = median_[winner_];
    const double wasted = spent_[!winner_] - median_[winner_] * tried_[!winner_];
    const double some = kHoldSteps * median_[winner_];
    hold_ = std::max(winner_ ? some : std::min(some, kAloneSeconds), kHoldShare * wasted);
  }

  double worthwhile_ = 1.0;
  bool untried_ = false;  // the team was chosen without a trial
  bool trying_ = true, candidate_ = true, first_ = true, winner_ = true;
  int count_ = 0;
  double samples_[kSampled] = {};
  double spent_[2] = {}, median_[2] = {};  // [alone, team]
  int tried_[2] = {};
  double held_ = 0.0, hold_ = 0.0;
  double recent_ = 0.0, trust_ = 1.0;
};

}  // namespace hotloop
