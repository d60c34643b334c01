// SPDX-License-Identifier: Apache-2.0
// What the emulator is free to do as a GPU might: in which order threads and blocks run, when copies land,
// what lies in memory that nobody wrote. A kernel that is right is right under all of them.
#pragma once

#include <cstdint>
#include <string>

namespace hotloop::simt {

enum class Order : std::uint8_t { kForward, kReversed, kRandom };

struct Mode {
  Order order = Order::kForward;
  std::uint64_t seed = 0;   // of kRandom
  bool late_copies = true;  // land when somebody waits, else when issued
  bool deferred = false;    // what a stream is given runs when somebody waits, else at once
  bool poison = true;       // shared memory and copies under way hold bits that are no number
};

// From words as in "random=7 eager deferred nopoison"; throws std::invalid_argument naming the word and what
// is allowed.
Mode parse_mode(const std::string& words);
// Of the launches to come. The first is taken from the environment variable HOTLOOP_SIMT.
void set_mode(const Mode& mode);
Mode current_mode();

}  // namespace hotloop::simt
