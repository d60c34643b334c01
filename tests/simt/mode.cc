// SPDX-License-Identifier: Apache-2.0
// Reads modes from words.
#include "simt/mode.h"

#include <charconv>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace hotloop::simt {

namespace {

// Whether the word is "random=" and a number of 64 bits, which goes to seed.
bool read_seed(const std::string& word, std::uint64_t& seed) {
  constexpr std::string_view kName = "random=";
  if (!word.starts_with(kName)) return false;
  const char* const end = word.data() + word.size();
  const auto [last, error] = std::from_chars(word.data() + kName.size(), end, seed);
  return error == std::errc() && last == end;
}

}  // namespace

Mode parse_mode(const std::string& words) {
  Mode mode;
  std::istringstream in(words);
  for (std::string word; in >> word;) {
    if (word == "forward") {
      mode.order = Order::kForward;
    } else if (word == "reversed") {
      mode.order = Order::kReversed;
    } else if (read_seed(word, mode.seed)) {
      mode.order = Order::kRandom;
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
