// SPDX-License-Identifier: Apache-2.0
// The choice between a team and working alone, fed with made-up times.
#include "runtime/team_choice.h"

#include "check.h"

namespace {

struct Machine {
  double alone, team;
};

// Total time of so many steps under the choice, and the share of the last half that ran on the team.
struct Outcome {
  double seconds = 0.0, on_team = 0.0;
};

Outcome steps(hotloop::TeamChoice& choice, Machine machine, int count, int interrupted_every = 0) {
  Outcome outcome;
  const int second_half = count - count / 2;
  for (int i = 0; i < count; ++i) {
    const bool team = choice.team();
    double seconds = team ? machine.team : machine.alone;
    if (interrupted_every > 0 && i % interrupted_every == 0) seconds += 5e-3;
    if (i >= count / 2) outcome.on_team += team;
    outcome.seconds += seconds;
    choice.took(seconds);
  }
  outcome.on_team /= second_half;
  return outcome;
}

void picks_the_faster_and_pays_little() {
  for (const Machine machine : {Machine{20e-6, 12e-6}, {20e-6, 200e-6}, {20e-6, 21e-6}, {1e-3, 30e-3}}) {
    hotloop::TeamChoice choice;
    steps(choice, machine, 1000);  // past the first try, whose price nothing has paid for yet
    const int count = 20000;
    const double best = count * (machine.team < machine.alone ? machine.team : machine.alone);
    const Outcome outcome = steps(choice, machine, count);
    CHECK(outcome.seconds <= 1.06 * best);
    CHECK(machine.team < machine.alone ? outcome.on_team > 0.9 : outcome.on_team < 0.1);
  }
}

void follows_a_machine_that_changes() {
  hotloop::TeamChoice choice;
  CHECK(steps(choice, {20e-6, 12e-6}, 5000).on_team > 0.9);
  CHECK(steps(choice, {20e-6, 80e-6}, 5000).on_team < 0.1);
  CHECK(steps(choice, {20e-6, 12e-6}, 20000).on_team > 0.9);
}

void a_team_that_keeps_winning_is_tried_rarely_and_left_at_once() {
  hotloop::TeamChoice choice;
  steps(choice, {1000e-6, 600e-6}, 10000);
  CHECK(steps(choice, {1000e-6, 600e-6}, 20000).seconds <= 1.01 * 20000 * 600e-6);
  CHECK(steps(choice, {1000e-6, 1500e-6}, 400).seconds <= 1.1 * 400 * 1000e-6);
}

void one_interruption_moves_nothing() {
  hotloop::TeamChoice choice;
  CHECK(steps(choice, {20e-6, 12e-6}, 20000, /*interrupted_every=*/97).on_team > 0.9);
}

void long_steps_begin_on_the_team() {
  hotloop::TeamChoice choice;
  CHECK(steps(choice, {120e-3, 70e-3}, 20).seconds < 20.01 * 70e-3);
  CHECK(steps(choice, {120e-3, 70e-3}, 20).seconds < 21 * 70e-3);  // with one step alone
  CHECK(steps(choice, {120e-3, 70e-3}, 200).seconds < 202 * 70e-3);
  hotloop::TeamChoice slower;
  steps(slower, {70e-3, 75e-3}, 30);
  CHECK(steps(slower, {70e-3, 75e-3}, 100).seconds < 1.06 * 100 * 70e-3);
}

void one_long_step_alone_tells_nothing_of_short_ones() {
  hotloop::TeamChoice choice;
  while (choice.team()) choice.took(40e-6);
  choice.took(30e-3);  // interrupted
  CHECK(steps(choice, {20e-6, 40e-6}, 100).on_team == 0.0);
}

void a_team_that_makes_long_steps_short_is_tried_once() {
  hotloop::TeamChoice choice;
  int alone = 0;
  for (int i = 0; i < 100; ++i) {
    alone += !choice.team();
    choice.took(choice.team() ? 15e-3 : 25e-3);
  }
  CHECK(alone == 1);
}

void short_steps_that_began_with_an_interruption_are_tried() {
  hotloop::TeamChoice choice;
  for (int i = 0; i < 2; ++i) choice.took(30e-3);
  CHECK(choice.team());
  CHECK(steps(choice, {20e-6, 40e-6}, 100).on_team == 0.0);
}

void a_busy_moment_at_the_first_long_step_costs_a_second() {
  hotloop::TeamChoice choice;
  steps(choice, {95e-3, 110e-3}, 25);  // both ways tried, while another process had the second core
  CHECK(steps(choice, {95e-3, 50e-3}, 40).on_team > 0.9);
  CHECK(steps(choice, {95e-3, 110e-3}, 200).seconds <= 1.06 * 200 * 95e-3 + 1.0);  // and the other way round
}

}  // namespace

int main() {
  a_busy_moment_at_the_first_long_step_costs_a_second();
  long_steps_begin_on_the_team();
  short_steps_that_began_with_an_interruption_are_tried();
  one_long_step_alone_tells_nothing_of_short_ones();
  a_team_that_makes_long_steps_short_is_tried_once();
  picks_the_faster_and_pays_little();
  follows_a_machine_that_changes();
  a_team_that_keeps_winning_is_tried_rarely_and_left_at_once();
  one_interruption_moves_nothing();
  return test::report("team_choice");
}
