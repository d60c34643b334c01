// SPDX-License-Identifier: Apache-2.0
// A keyed permutation of 0..n-1 that is evaluated, never stored: a Feistel network over the smallest power
// of two that holds n, walked along its cycle until it lands below n. O(1) seek into any epoch, so that an
// interrupted epoch resumes without replay, and the same rows on every device.
#pragma once

#include <cstdint>

#include "core/philox.h"

namespace hotloop {

// The network: eight rounds, since the halves of a small n hold only a bit or two each; two of them bring
// every bit of one half to all bits of the other.
//   low ^= mix(high + key_r) & low_mask;  high ^= mix(low + key_r+1) & high_mask
struct Feistel {
  static constexpr std::uint32_t kRounds = 8;

  std::uint64_t n = 0;  // encrypted again until it is below
  std::uint32_t keys[kRounds] = {};
  std::uint32_t low_mask = 0, high_mask = 0;
  int low_bits = 0;

  // Two multiply-xorshift steps: every input bit reaches every output bit. Always inlined: units of several
  // ISAs use it, and must not share one copy. `Word` is 32 bits, or a vector of such.
  template <class Word>
  HOTLOOP_HD HOTLOOP_INLINE static Word mix(Word x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
  }
};

class Permutation {
 public:
  // The order of one epoch: keys come from Philox(seed, run, epoch).
  HOTLOOP_HD Permutation(std::uint64_t n, std::uint64_t seed, std::uint32_t run, std::uint32_t epoch) {
    int bits = 2;
    while (bits < 64 && (std::uint64_t{1} << bits) < n) ++bits;
    network_.n = n;
    network_.low_bits = bits / 2;
    network_.low_mask = mask(bits / 2);
    network_.high_mask = mask(bits - bits / 2);
    const PhiloxKey key = stream_key(seed, run, epoch, Stream::kShuffle);
    for (std::uint32_t block = 0; block < Feistel::kRounds / 4; ++block) {
      const PhiloxBlock words = philox({{block, 0u, 0u, 0u}}, key);
      for (std::uint32_t i = 0; i < 4; ++i) network_.keys[4 * block + i] = words.word[i];
    }
  }

  HOTLOOP_HD explicit Permutation(const Feistel& network) : network_(network) {}

  // Where position i of the epoch reads its row; a bijection of [0, n).
  HOTLOOP_HD std::uint64_t operator()(std::uint64_t i) const {
    do {
      i = encrypt(i);
    } while (i >= network_.n);  // at most half of the domain lies above n: two tries on average at worst
    return i;
  }

  // What kernels/shuffle_rows.h runs on whole batches.
  HOTLOOP_HD HOTLOOP_INLINE const Feistel& network() const { return network_; }

 private:
  HOTLOOP_HD static std::uint32_t mask(int bits) {
    return static_cast<std::uint32_t>((std::uint64_t{1} << bits) - 1);
  }

  HOTLOOP_HD std::uint64_t encrypt(std::uint64_t x) const {
    std::uint32_t low = static_cast<std::uint32_t>(x) & network_.low_mask;
    std::uint32_t high = static_cast<std::uint32_t>(x >> network_.low_bits) & network_.high_mask;
    for (std::uint32_t round = 0; round < Feistel::kRounds; round += 2) {
      low ^= Feistel::mix(high + network_.keys[round]) & network_.low_mask;
      high ^= Feistel::mix(low + network_.keys[round + 1]) & network_.high_mask;
    }
    return (static_cast<std::uint64_t>(high) << network_.low_bits) | low;
  }

  Feistel network_;
};

}  // namespace hotloop
