// SPDX-License-Identifier: Apache-2.0
// Fingerprints: fixed for ever, different for every changed bit, for every length and for swapped words.
#include "core/fingerprint.h"

#include <set>
#include <utility>
#include <vector>

#include "check.h"

using hotloop::Fingerprint;
using hotloop::Fingerprinter;

namespace {

std::pair<std::uint64_t, std::uint64_t> of(const std::vector<std::byte>& data, std::size_t bytes) {
  const Fingerprint found = Fingerprinter::of(data.data(), bytes);
  return {found.hi, found.lo};
}

}  // namespace

int main() {
  std::vector<std::byte> data(301);
  std::uint32_t random = 1;  // Numerical Recipes' generator: no two words alike
  for (std::byte& byte : data)
    byte = static_cast<std::byte>((random = random * 1664525u + 1013904223u) >> 24);
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
  std::size_t expected = 0;
  for (std::size_t bytes = 0; bytes <= data.size(); ++bytes, ++expected) seen.insert(of(data, bytes));
  for (std::size_t bit = 0; bit < 8 * data.size(); ++bit, ++expected) {
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    seen.insert(of(data, data.size()));
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  // Pairs of flipped signs, of floats near and far: what negating columns does.
  for (std::size_t first = 3; first < 64; first += 4) {
    for (std::size_t second = first + 4; second < data.size(); second += 4, ++expected) {
      for (const std::size_t at : {first, second}) data[at] ^= std::byte{0x80};
      seen.insert(of(data, data.size()));
      for (const std::size_t at : {first, second}) data[at] ^= std::byte{0x80};
    }
  }
  for (std::size_t word = 8; word + 16 <= data.size(); word += 8, ++expected) {
    for (std::size_t i = 0; i < 8; ++i) std::swap(data[i], data[word + i]);
    seen.insert(of(data, data.size()));
    for (std::size_t i = 0; i < 8; ++i) std::swap(data[i], data[word + i]);
  }
  CHECK(seen.size() == expected);
  // Zeros differ by their number alone.
  seen.clear();
  const std::vector<std::byte> zeros(200);
  for (std::size_t bytes = 0; bytes <= zeros.size(); ++bytes) seen.insert(of(zeros, bytes));
  CHECK(seen.size() == zeros.size() + 1);
  // Pieces of whole blocks are the same as all at once.
  Fingerprinter pieces;
  pieces.add(data.data(), 64);
  pieces.add(data.data() + 64, 128);
  CHECK(pieces.whole());
  pieces.add(data.data() + 192, data.size() - 192);
  CHECK(!pieces.whole());
  const Fingerprint joined = pieces.finish();
  CHECK(std::make_pair(joined.hi, joined.lo) == of(data, data.size()));
  return test::report("fingerprint");
}
