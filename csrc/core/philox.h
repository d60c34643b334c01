// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC'11).
// Counter-based: any block is computed on its own, so results never depend on threads or on order.
// Always inlined: units of several ISAs include this, and must not share one copy.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace hotloop {

struct PhiloxBlock {
  std::uint32_t word[4];
};

struct PhiloxKey {
  std::uint32_t lo, hi;
};

constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u;
constexpr std::uint32_t kPhiloxM1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9u;
constexpr std::uint32_t kPhiloxW1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

HOTLOOP_HD HOTLOOP_INLINE PhiloxBlock philox(PhiloxBlock counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(kPhiloxM0) * counter.word[0];
    const std::uint64_t p1 = static_cast<std::uint64_t>(kPhiloxM1) * counter.word[2];
    counter = {
        {static_cast<std::uint32_t>(p1 >> 32) ^ counter.word[1] ^ key.lo, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ counter.word[3] ^ key.hi, static_cast<std::uint32_t>(p0)}};
    key.lo += kPhiloxW0;
    key.hi += kPhiloxW1;
  }
  return counter;
}

// What a stream of random numbers is for: two purposes never share a key.
enum class Stream : std::uint32_t { kDropout = 1, kShuffle = 2 };

// The key of one stream: Philox of (run, number, purpose) under the user's seed.
//   dropout: number = layer;   shuffle: number = epoch.
HOTLOOP_HD HOTLOOP_INLINE PhiloxKey stream_key(std::uint64_t seed, std::uint32_t run, std::uint32_t number,
                                               Stream stream) {
  const PhiloxKey user{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  const PhiloxBlock block = philox({{run, number, static_cast<std::uint32_t>(stream), 0u}}, user);
  return {block.word[0], block.word[1]};
}

}  // namespace hotloop
