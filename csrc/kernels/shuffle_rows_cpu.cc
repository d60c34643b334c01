// SPDX-License-Identifier: Apache-2.0
// The permutation of core/shuffle.h for runs of positions. The rounds keep their lanes in registers, as
// vectors of the compiler's own, since kernels/vec.h has no integers; positions that land at or above n are
// listed and go through the network together, so that its lanes stay full.
#include "kernels/shuffle_rows.h"

#include <cstring>

#include "kernels/kernel.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

// Lanes that go through the network together. Half a round waits over 20 cycles for two multiplications and
// nine simple steps in a row: four to eight independent vectors fill them, with or without spills.
#if defined(__AVX512F__)
constexpr int kLaneBytes = 64;
constexpr int64 kGroup = 64;
#elif defined(__AVX2__)
constexpr int kLaneBytes = 32;
constexpr int64 kGroup = 64;
#else
constexpr int kLaneBytes = 16;
constexpr int64 kGroup = 32;
#endif
typedef std::uint32_t Lanes __attribute__((vector_size(kLaneBytes)));
constexpr int64 kVectors = kGroup * 4 / kLaneBytes;

// Positions whose rejects are listed together: most batches are one run.
constexpr int64 kRun = 1024;

// One pass of the network over kGroup positions, in place.
HOTLOOP_INLINE void encrypt_group(const Feistel& f, std::uint64_t (&x)[kGroup]) {
  std::uint32_t low_half[kGroup], high_half[kGroup];
  for (int64 i = 0; i < kGroup; ++i) low_half[i] = static_cast<std::uint32_t>(x[i]) & f.low_mask;
  for (int64 i = 0; i < kGroup; ++i) {
    high_half[i] = static_cast<std::uint32_t>(x[i] >> f.low_bits) & f.high_mask;
  }
  Lanes low[kVectors], high[kVectors];
  std::memcpy(low, low_half, sizeof low);
  std::memcpy(high, high_half, sizeof high);
  for (std::uint32_t round = 0; round < Feistel::kRounds; round += 2) {
#pragma GCC unroll 8
    for (int64 v = 0; v < kVectors; ++v) low[v] ^= Feistel::mix(high[v] + f.keys[round]) & f.low_mask;
#pragma GCC unroll 8
    for (int64 v = 0; v < kVectors; ++v) high[v] ^= Feistel::mix(low[v] + f.keys[round + 1]) & f.high_mask;
  }
  std::memcpy(low_half, low, sizeof low);
  std::memcpy(high_half, high, sizeof high);
  for (int64 i = 0; i < kGroup; ++i) {
    x[i] = (static_cast<std::uint64_t>(high_half[i]) << f.low_bits) | low_half[i];
  }
}

// Up to kRun positions from `first` on.
HOTLOOP_INLINE void shuffle_run(const Feistel& f, std::uint64_t first, int64 count, int64* rows) {
  std::uint64_t x[kGroup];
  int64 rejected[kRun + 1];  // which rows walk on; one more, since each candidate is written before it counts
  int64 left = 0;
  for (int64 begin = 0; begin < count; begin += kGroup) {
    const int64 n = count - begin < kGroup ? count - begin : kGroup;
    for (int64 i = 0; i < kGroup; ++i) x[i] = first + static_cast<std::uint64_t>(begin + i);
    encrypt_group(f, x);
    std::memcpy(rows + begin, x, static_cast<std::size_t>(n) * sizeof *rows);
    for (int64 i = 0; i < n; ++i) {  // no branch: who is rejected is as random as the order itself
      rejected[left] = begin + i;
      left += x[i] >= f.n ? 1 : 0;
    }
  }
  while (left > 0) {
    const int64 count_left = left;
    left = 0;
    for (int64 begin = 0; begin < count_left; begin += kGroup) {
      const int64 n = count_left - begin < kGroup ? count_left - begin : kGroup;
      for (int64 i = 0; i < n; ++i) x[i] = static_cast<std::uint64_t>(rows[rejected[begin + i]]);
      encrypt_group(f, x);
      for (int64 i = 0; i < n; ++i) {
        const int64 slot = rejected[begin + i];
        rows[slot] = static_cast<int64>(x[i]);
        rejected[left] = slot;
        left += x[i] >= f.n ? 1 : 0;
      }
    }
  }
}

}  // namespace

void shuffle_rows(const Permutation& permutation, int64 first, int64 count, int64* rows) {
  const Feistel f = permutation.network();
  for (int64 begin = 0; begin < count; begin += kRun) {
    shuffle_run(f, static_cast<std::uint64_t>(first + begin), count - begin < kRun ? count - begin : kRun,
                rows + begin);
  }
}

}  // namespace hotloop::HOTLOOP_ISA
