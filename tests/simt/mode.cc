// SPDX-License-Identifier: Apache-2.0
// Reads modes from words.
#include "simt/mode.h"

#include <sstream>
#include <stdexcept>

namespace hotloop::simt {

Mode parse_mode(const std::string& words) {
  Mode mode;
  std::istringstream in(words);
  for (std::string word; in >> word;) {
    if (word == "forward") {
      mode.order = Order::kForward;
    } else if (word == "reversed") {
      mode.order = Order::kReversed;
    } else if (word.rfind("random=", 0) == 0 &&
               word.find_first_not_of("0123456789", 7) == std::string::npos && word.size() > 7 &&
               word.size() < 26) {
      mode.order = Order::kRandom;
      mode.seed = std::stoull(word.substr(7));
    } else if (word == "late" || word == "eager") {
      mode.late_copies = word == "late";
    } else if (word == "deferred" || word == "prompt") {
      mode.deferred = word == "deferred";
    } else if (word == "poison" || word == "nopoison") {
      mode.poison = word == "poison";
    } else {
      throw std::invalid_argument(
          "[HOTLOOP_SIMT] a word of the emulator's mode, got '" + word +
          "'; allowed forward, reversed, random=SEED, late, eager, prompt, deferred, poison, nopoison; "
          "separate several by spaces");
    }
  }
  return mode;
}

}  // namespace hotloop::simt
