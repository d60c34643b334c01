// SPDX-License-Identifier: Apache-2.0
// A keyed permutation of 0..n-1 that is evaluated, never stored: a Feistel network over the smallest power
// of two that holds n, walked along its cycle until it lands below n. O(1) seek into any epoch, so that an
// interrupted epoch resumes without replay, and the same rows on every device.
#pragma once

#include <cstdint>

#include "core/philox.h"

namespace hotloop {

class Permutation {
 public:
  // The order of one epoch: keys come from Philox(seed, run, epoch).
  HOTLOOP_HD Permutation(std::uint64_t n, std::uint64_t seed, std::uint32_t run, std::uint32_t epoch)
      : n_(n) {
    int bits = 2;
    while (bits < 64 && (std::uint64_t{1} << bits) < n) ++bits;
    low_bits_ = bits / 2;
    low_mask_ = mask(low_bits_);
    high_mask_ = mask(bits - low_bits_);
    const PhiloxKey key = stream_key(seed, run, epoch, Stream::kShuffle);
    for (std::uint32_t block = 0; block < kRounds / 4; ++block) {
      const PhiloxBlock words = philox({{block, 0u, 0u, 0u}}, key);
      for (int i = 0; i < 4; ++i) keys_[4 * block + static_cast<std::uint32_t>(i)] = words.word[i];
    }
  }

  // Where position i of the epoch reads its row; a bijection of [0, n).
  HOTLOOP_HD std::uint64_t operator()(std::uint64_t i) const {
    do {
      i = encrypt(i);
    } while (i >= n_);  // at most half of the domain lies above n, so two tries are the average
    return i;
  }

 private:
  // Eight rounds: four would do for large n, but the halves of a small n hold only a bit or two each.
  static constexpr std::uint32_t kRounds = 8;

  HOTLOOP_HD static std::uint32_t mask(int bits) {
    return static_cast<std::uint32_t>((std::uint64_t{1} << bits) - 1);
  }

  // Two multiply-xorshift steps: every input bit reaches every output bit.
  HOTLOOP_HD static std::uint32_t mix(std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
  }

  HOTLOOP_HD std::uint64_t encrypt(std::uint64_t x) const {
    std::uint32_t low = static_cast<std::uint32_t>(x) & low_mask_;
    std::uint32_t high = static_cast<std::uint32_t>(x >> low_bits_) & high_mask_;
    for (std::uint32_t round = 0; round < kRounds; round += 2) {
      low ^= mix(high + keys_[round]) & low_mask_;
      high ^= mix(low + keys_[round + 1]) & high_mask_;
    }
    return (static_cast<std::uint64_t>(high) << low_bits_) | low;
  }

  std::uint64_t n_;
  std::uint32_t keys_[kRounds] = {};
  std::uint32_t low_mask_ = 0, high_mask_ = 0;
  int low_bits_ = 0;
};

}  // namespace hotloop
