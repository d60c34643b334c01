// SPDX-License-Identifier: Apache-2.0
// What the matrix units multiply, by precision: how float32 fragments become operands, and which products
// are summed. Fragments are of 16 steps of k, four a thread (see matmul_mma_operand_cuda.h): one instruction
// in bf16, two in tf32, six for float32 accuracy.
//
//   Left   of 16 rows of A: from the rows g and h that the instruction has at g and g + 8
//   Right  of 8 columns of B
//   kLong  whether a multiply takes so long that the loads of the next may wait
//   multiply(sums, left, right): sums (n) += left right[j], n columns of tiles at a time, so that no
//   instruction waits for the one before it
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

// Operands rounded to 8 bits, two in a word: 16 steps by one instruction.
struct MmaBf16 {
  static constexpr bool kLong = false;
  struct Left {
    std::uint32_t word[4];
  };
  struct Right {
    std::uint32_t word[2];
  };

  HL_DEVICE static Left left(const float (&g)[4], const float (&h)[4]) {
    return {{pack_bf16(g[0], g[1]), pack_bf16(h[0], h[1]), pack_bf16(g[2], g[3]), pack_bf16(h[2], h[3])}};
  }
  HL_DEVICE static Right right(const float (&x)[4]) {
    return {{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])}};
  }
  template <int n>
  HL_DEVICE static void multiply(float (&sums)[n][4], const Left& left, const Right (&right)[n]) {
    HL_UNROLL
    for (int j = 0; j < n; ++j) mma_bf16(sums[j], left.word, right[j].word);
  }
};

// Operands rounded to 11 bits.
struct MmaTf32 {
  static constexpr bool kLong = false;
  struct Left {
    std::uint32_t word[2][4];
  };
  struct Right {
    std::uint32_t word[2][2];
  };

  HL_DEVICE static Left left(const float (&g)[4], const float (&h)[4]) {
    return {{{to_tf32(g[0]), to_tf32(h[0]), to_tf32(g[1]), to_tf32(h[1])},
             {to_tf32(g[2]), to_tf32(h[2]), to_tf32(g[3]), to_tf32(h[3])}}};
  }
  HL_DEVICE static Right right(const float (&x)[4]) {
    return {{{to_tf32(x[0]), to_tf32(x[1])}, {to_tf32(x[2]), to_tf32(x[3])}}};
  }
  template <int n>
  HL_DEVICE static void multiply(float (&sums)[n][4], const Left& left, const Right (&right)[n]) {
    HL_UNROLL
    for (int q = 0; q < 2; ++q) HL_UNROLL
    for (int j = 0; j < n; ++j) mma_tf32(sums[j], left.word[q], right[j].word[q]);
  }
};

// A number as the sum of two of 11 bits each: high, rounded to nearest, and what it leaves, exact in float32.
// The unit reads the upper 19 bits of a word, which cuts the rest's 13th and 12th bit: 2^-23 of the number.
struct TwoWords {
  std::uint32_t high, low;
};

// An infinity leaves NaN (inf - inf), and so does a number within 2^-12 of the largest, which rounds to one.
// Careful: the latter is cut instead; the former is left over by 1 or -1, so that it meets the other factor's
// first word alone, or another infinity.
template <bool careful>
HL_DEVICE TwoWords two_words(float x) {
  constexpr std::uint32_t kKept = 0xFFFFE000u, kHalf = 0x1000u;
  const auto value = [](std::uint32_t word) { return __builtin_bit_cast(float, word); };
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  std::uint32_t high = (bits + kHalf) & kKept;  // ties away from zero
  float low = x - value(high);
  if constexpr (careful) {
    if (::fabsf(x) == INFINITY) {
      high = __builtin_bit_cast(std::uint32_t, ::copysignf(1.0f, x));
      low = x;
    } else if (::fabsf(value(high)) == INFINITY) {
      high = bits & kKept;
      low = x - value(high);
    }
  }
  return {high, __builtin_bit_cast(std::uint32_t, low)};
}

// Float32 accuracy: a b = low high + high low + high high; low low is below 2^-22 of it. The unit cuts its
// sums instead of rounding them, a bias that grows with k. So it sums 16 steps by itself, the small terms
// first, and the multiply-add units add that up: four additions beside 24 clocks or more of the unit.
template <bool careful>
struct MmaFloat32 {
  using Careful = MmaFloat32<true>;
  static constexpr bool kLong = true;
  struct Left {
    std::uint32_t high[2][4], low[2][4];
  };
  struct Right {
    std::uint32_t high[2][2], low[2][2];
  };

  HL_DEVICE static Left left(const float (&g)[4], const float (&h)[4]) {
    Left to;
    HL_UNROLL
    for (int q = 0; q < 2; ++q) HL_UNROLL
    for (int e = 0; e < 4; ++e) {
      const TwoWords w = two_words<careful>((e % 2 == 0 ? g : h)[2 * q + e / 2]);
      to.high[q][e] = w.high, to.low[q][e] = w.low;
    }
    return to;
  }
  HL_DEVICE static Right right(const float (&x)[4]) {
    Right to;
    HL_UNROLL
    for (int e = 0; e < 4; ++e) {
      const TwoWords w = two_words<careful>(x[e]);
      to.high[e / 2][e % 2] = w.high, to.low[e / 2][e % 2] = w.low;
    }
    return to;
  }
  template <int n>
  HL_DEVICE static void multiply(float (&sums)[n][4], const Left& left, const Right (&right)[n]) {
    float part[n][4] = {};
    HL_UNROLL
    for (int q = 0; q < 2; ++q) {
      HL_UNROLL
      for (int j = 0; j < n; ++j) mma_tf32(part[j], left.low[q], right[j].high[q]);
      HL_UNROLL
      for (int j = 0; j < n; ++j) mma_tf32(part[j], left.high[q], right[j].low[q]);
    }
    HL_UNROLL
    for (int q = 0; q < 2; ++q) HL_UNROLL
    for (int j = 0; j < n; ++j) mma_tf32(part[j], left.high[q], right[j].high[q]);
    HL_UNROLL
    for (int j = 0; j < n; ++j) HL_UNROLL
    for (int e = 0; e < 4; ++e) sums[j][e] += part[j][e];
  }
};

}  // namespace hotloop::cuda
