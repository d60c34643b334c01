// SPDX-License-Identifier: Apache-2.0
// Eight consecutive Philox blocks at once, as the 64 half-words of their output in element order. Any unit
// may use the plain loop; AVX2, AVX-512 and NEON have versions of their own because the compiler does not
// find the 32x32 to 64-bit multiplication.
#pragma once

#include "core/host_device.h"
#include "core/philox.h"
#include "core/types.h"
#if defined(__AVX2__) || defined(__ARM_NEON)
#include "cpu/intrinsics.h"
#endif

namespace hotloop::HOTLOOP_ISA {

constexpr int kPhiloxBlocks = 8;
constexpr int kPhiloxHalves = 64;  // eight blocks of four words of two halves
#if defined(__AVX512F__)
constexpr int kPhiloxSets = 4;  // of eight blocks, made at once: 16 of 32 registers
#else
constexpr int kPhiloxSets = 1;
#endif
template <int n>
struct Count {
  static constexpr int kValue = n;
};

#if defined(__AVX512F__)
// One block per 64-bit lane: each word is the low half of its lane. What the products leave in the high
// halves is never read: the next multiplication takes low halves, and xor does not mix them. The rounds of a
// block wait for each other, so that several sets of eight blocks take turns.
template <int sets>
HOTLOOP_INLINE void philox_sets(std::uint64_t first_block, std::uint64_t step, PhiloxKey key,
                                std::uint16_t* halves) {
  constexpr int kXor3 = 0x96;
  __m512i w[sets][4];
#pragma GCC unroll 4
  for (int i = 0; i < sets; ++i) {
    const __m512i start = _mm512_set1_epi64(static_cast<long long>(first_block) + i * kPhiloxBlocks);
    w[i][0] = _mm512_add_epi64(start, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    w[i][1] = _mm512_srli_epi64(w[i][0], 32);
    w[i][2] = _mm512_set1_epi64(static_cast<long long>(step));
    w[i][3] = _mm512_srli_epi64(w[i][2], 32);
  }
  for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < sets; ++i) {
      const __m512i p0 = _mm512_mul_epu32(w[i][0], _mm512_set1_epi64(kPhiloxM0));
      const __m512i p1 = _mm512_mul_epu32(w[i][2], _mm512_set1_epi64(kPhiloxM1));
      w[i][0] =
          _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), w[i][1], _mm512_set1_epi64(key.lo), kXor3);
      w[i][2] =
          _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), w[i][3], _mm512_set1_epi64(key.hi), kXor3);
      w[i][1] = p1;
      w[i][3] = p0;
    }
    key.lo += kPhiloxW0;
    key.hi += kPhiloxW1;
  }
#pragma GCC unroll 4
  for (int i = 0; i < sets; ++i, halves += kPhiloxHalves) {
    // Lane i: w0 | w1 << 32 and w2 | w3 << 32 of block i, stored as 16 bytes a block.
    const __m512i w01 = _mm512_mask_blend_epi32(0xAAAA, w[i][0], _mm512_slli_epi64(w[i][1], 32));
    const __m512i w23 = _mm512_mask_blend_epi32(0xAAAA, w[i][2], _mm512_slli_epi64(w[i][3], 32));
    const __m512i low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    _mm512_storeu_si512(halves, _mm512_permutex2var_epi64(w01, low, w23));
    _mm512_storeu_si512(halves + kPhiloxHalves / 2, _mm512_permutex2var_epi64(w01, high, w23));
  }
}

// Bit e: halves[e] > most.
HOTLOOP_INLINE std::uint64_t halves_above(const std::uint16_t* halves, int most) {
  const __m512i limit = _mm512_set1_epi16(static_cast<short>(most));
  const __mmask32 low = _mm512_cmpgt_epu16_mask(_mm512_loadu_si512(halves), limit);
  const __mmask32 high = _mm512_cmpgt_epu16_mask(_mm512_loadu_si512(halves + kPhiloxHalves / 2), limit);
  return std::uint64_t{low} | std::uint64_t{high} << 32;
}
#elif defined(__AVX2__)
// Four blocks, one per 64-bit lane: each word is the low half of its lane. What the products leave in the
// high halves is never read: the next multiplication takes low halves, and xor does not mix them.
struct PhiloxLanes {
  __m256i word[4];
};

HOTLOOP_INLINE void philox_round(PhiloxLanes& c, __m256i key_lo, __m256i key_hi) {
  const __m256i p0 = _mm256_mul_epu32(c.word[0], _mm256_set1_epi64x(kPhiloxM0));
  const __m256i p1 = _mm256_mul_epu32(c.word[2], _mm256_set1_epi64x(kPhiloxM1));
  c.word[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c.word[1]), key_lo);
  c.word[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c.word[3]), key_hi);
  c.word[1] = p1;
  c.word[3] = p0;
}

// Lane i of the result's words: (w0 | w1 << 32) and (w2 | w3 << 32) of block i, stored as 16 bytes a block.
HOTLOOP_INLINE void store_blocks(const PhiloxLanes& c, std::uint16_t* halves) {
  const __m256i w01 = _mm256_blend_epi32(c.word[0], _mm256_slli_epi64(c.word[1], 32), 0xAA);
  const __m256i w23 = _mm256_blend_epi32(c.word[2], _mm256_slli_epi64(c.word[3], 32), 0xAA);
  const __m256i even = _mm256_unpacklo_epi64(w01, w23);  // blocks 0 and 2
  const __m256i odd = _mm256_unpackhi_epi64(w01, w23);   // blocks 1 and 3
  __m256i* out = reinterpret_cast<__m256i*>(halves);
  _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}

template <int>
HOTLOOP_INLINE void philox_sets(std::uint64_t first_block, std::uint64_t step, PhiloxKey key,
                                std::uint16_t* halves) {
  PhiloxLanes four[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t block = first_block + std::uint64_t{4} * static_cast<std::uint64_t>(i);
    const __m256i start = _mm256_set1_epi64x(static_cast<long long>(block));
    four[i].word[0] = _mm256_add_epi64(start, _mm256_setr_epi64x(0, 1, 2, 3));
    four[i].word[1] = _mm256_srli_epi64(four[i].word[0], 32);
    four[i].word[2] = _mm256_set1_epi64x(static_cast<long long>(step));
    four[i].word[3] = _mm256_srli_epi64(four[i].word[2], 32);
  }
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const __m256i key_lo = _mm256_set1_epi64x(key.lo);
    const __m256i key_hi = _mm256_set1_epi64x(key.hi);
    philox_round(four[0], key_lo, key_hi);
    philox_round(four[1], key_lo, key_hi);
    key.lo += kPhiloxW0;
    key.hi += kPhiloxW1;
  }
  store_blocks(four[0], halves);
  store_blocks(four[1], halves + kPhiloxHalves / 2);
}

// Bit e: halves[e] > most, which is where the difference that stops at 0 is not 0.
HOTLOOP_INLINE std::uint64_t halves_above(const std::uint16_t* halves, int most) {
  const __m256i limit = _mm256_set1_epi16(static_cast<short>(most));
  std::uint64_t bits = 0;
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const auto not_above = [&](int at) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves + 32 * i + at));
      return _mm256_cmpeq_epi16(_mm256_subs_epu16(x, limit), _mm256_setzero_si256());
    };
    const __m256i bytes = _mm256_packs_epi16(not_above(0), not_above(16));  // quarters 0, 2, 1, 3
    const int below = _mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xD8));
    bits |= std::uint64_t{~static_cast<std::uint32_t>(below)} << (32 * i);
  }
  return bits;
}
#elif defined(HOTLOOP_NEON)
// Word w of four blocks. The long multiplications give two products each; even and odd words take their
// halves apart.
struct PhiloxLanes {
  uint32x4_t word[4];
};

HOTLOOP_INLINE void multiply_wide(uint32x4_t a, std::uint32_t b, uint32x4_t& low, uint32x4_t& high) {
  const uint32x4_t p = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(a), b));
  const uint32x4_t q = vreinterpretq_u32_u64(vmull_high_n_u32(a, b));
  low = vuzp1q_u32(p, q);
  high = vuzp2q_u32(p, q);
}

HOTLOOP_INLINE void philox_round(PhiloxLanes& c, PhiloxKey key) {
  uint32x4_t low0, high0, low1, high1;
  multiply_wide(c.word[0], kPhiloxM0, low0, high0);
  multiply_wide(c.word[2], kPhiloxM1, low1, high1);
  c.word[0] = veorq_u32(veorq_u32(high1, c.word[1]), vdupq_n_u32(key.lo));
  c.word[2] = veorq_u32(veorq_u32(high0, c.word[3]), vdupq_n_u32(key.hi));
  c.word[1] = low1;
  c.word[3] = low0;
}

template <int>
HOTLOOP_INLINE void philox_sets(std::uint64_t first_block, std::uint64_t step, PhiloxKey key,
                                std::uint16_t* halves) {
  PhiloxLanes four[2];
#pragma GCC unroll 2
  for (unsigned i = 0; i < 2; ++i) {
    const uint64x2_t one{0, 1};
    const uint64x2_t p = vaddq_u64(vdupq_n_u64(first_block + 4 * i), one);
    const uint64x2_t q = vaddq_u64(vdupq_n_u64(first_block + 4 * i + 2), one);
    four[i].word[0] = vuzp1q_u32(vreinterpretq_u32_u64(p), vreinterpretq_u32_u64(q));
    four[i].word[1] = vuzp2q_u32(vreinterpretq_u32_u64(p), vreinterpretq_u32_u64(q));
    four[i].word[2] = vdupq_n_u32(static_cast<std::uint32_t>(step));
    four[i].word[3] = vdupq_n_u32(static_cast<std::uint32_t>(step >> 32));
  }
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(four[0], key);
    philox_round(four[1], key);
    key.lo += kPhiloxW0;
    key.hi += kPhiloxW1;
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // stores word by word of each block in turn
    const uint32x4x4_t words{{four[i].word[0], four[i].word[1], four[i].word[2], four[i].word[3]}};
    vst4q_u32(reinterpret_cast<std::uint32_t*>(halves + i * kPhiloxHalves / 2), words);
  }
}

// Bit e: halves[e] > most.
HOTLOOP_INLINE std::uint64_t halves_above(const std::uint16_t* halves, int most) {
  const uint16x8_t limit = vdupq_n_u16(static_cast<std::uint16_t>(most));
  const uint16x8_t weight{1, 2, 4, 8, 16, 32, 64, 128};
  std::uint64_t bits = 0;
  for (int e = 0; e < kPhiloxHalves; e += 8) {
    const uint16x8_t above = vandq_u16(vcgtq_u16(vld1q_u16(halves + e), limit), weight);
    bits |= std::uint64_t{vaddvq_u16(above)} << e;
  }
  return bits;
}
#else
template <int>
HOTLOOP_INLINE void philox_sets(std::uint64_t first_block, std::uint64_t step, PhiloxKey key,
                                std::uint16_t* halves) {
  for (int i = 0; i < kPhiloxBlocks; ++i) {
    const std::uint64_t b = first_block + static_cast<unsigned>(i);
    const PhiloxBlock block =
        philox({{static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(b >> 32),
                 static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32)}},
               key);
    for (int w = 0; w < 4; ++w) {
      halves[8 * i + 2 * w] = static_cast<std::uint16_t>(block.word[w]);
      halves[8 * i + 2 * w + 1] = static_cast<std::uint16_t>(block.word[w] >> 16);
    }
  }
}

// Bit e: halves[e] > most.
HOTLOOP_INLINE std::uint64_t halves_above(const std::uint16_t* halves, int most) {
  std::uint64_t bits = 0;
  for (int e = 0; e < kPhiloxHalves; ++e) bits |= std::uint64_t{halves[e] > most} << e;
  return bits;
}
#endif

// words[i], i < count, bit e: half-word 64 i + e from block first_block on is at least threshold (1 ...
// 65536).
inline void philox_at_least(std::uint64_t first_block, int64 count, std::uint64_t step, PhiloxKey key,
                            int threshold, std::uint64_t* words) {
  alignas(64) std::uint16_t halves[kPhiloxSets * kPhiloxHalves];
  const auto make = [&](auto sets, int64 i) {
    constexpr int n = decltype(sets)::kValue;
    philox_sets<n>(first_block + static_cast<std::uint64_t>(i * kPhiloxBlocks), step, key, halves);
    for (int j = 0; j < n; ++j) words[i + j] = halves_above(halves + j * kPhiloxHalves, threshold - 1);
  };
  int64 i = 0;
  for (; i + kPhiloxSets <= count; i += kPhiloxSets) make(Count<kPhiloxSets>{}, i);
  for (; i < count; ++i) make(Count<1>{}, i);
}

}  // namespace hotloop::HOTLOOP_ISA
