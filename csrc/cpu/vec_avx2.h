// SPDX-License-Identifier: Apache-2.0
// Eight floats in a ymm register, with FMA.
#pragma once

#include "cpu/intrinsics.h"

namespace hotloop::avx2 {

template <class real>
struct Vec;
template <class real>
struct Mask;

// Lanes below n set: what maskload and maskstore take. n in [0, 8].
HOTLOOP_INLINE __m256i lanes_below(int64 n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

template <>
struct Vec<float> {
  using scalar = float;
  static constexpr int64 width = 8;
  __m256 v;

  Vec() = default;
  HOTLOOP_INLINE Vec(__m256 x) : v(x) {}
  HOTLOOP_INLINE explicit Vec(float x) : v(_mm256_set1_ps(x)) {}
  static HOTLOOP_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static HOTLOOP_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static HOTLOOP_INLINE Vec load_n(const float* p, int64 n) { return _mm256_maskload_ps(p, lanes_below(n)); }
  HOTLOOP_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  HOTLOOP_INLINE void store_n(float* p, int64 n) const { _mm256_maskstore_ps(p, lanes_below(n), v); }
};

template <>
struct Mask<float> {
  __m256 m;

  static HOTLOOP_INLINE Mask first(int64 n) { return {_mm256_castsi256_ps(lanes_below(n))}; }
  static HOTLOOP_INLINE Mask of_bits(std::uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i own = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(own, lane))};
  }
};

using Vecf = Vec<float>;
using Maskf = Mask<float>;

HOTLOOP_INLINE Vecf operator+(Vecf a, Vecf b) { return _mm256_add_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a, Vecf b) { return _mm256_sub_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator*(Vecf a, Vecf b) { return _mm256_mul_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator/(Vecf a, Vecf b) { return _mm256_div_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f)); }
HOTLOOP_INLINE Vecf fma(Vecf a, Vecf b, Vecf c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
HOTLOOP_INLINE Vecf fnma(Vecf a, Vecf b, Vecf c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
HOTLOOP_INLINE Vecf max(Vecf a, Vecf b) { return _mm256_max_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf min(Vecf a, Vecf b) { return _mm256_min_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf sqrt(Vecf a) { return _mm256_sqrt_ps(a.v); }
HOTLOOP_INLINE Vecf abs(Vecf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
HOTLOOP_INLINE Maskf operator<(Vecf a, Vecf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
HOTLOOP_INLINE Maskf operator<=(Vecf a, Vecf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
HOTLOOP_INLINE Maskf operator==(Vecf a, Vecf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
HOTLOOP_INLINE Maskf is_nan(Vecf a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
HOTLOOP_INLINE Maskf operator&(Maskf a, Maskf b) { return {_mm256_and_ps(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator|(Maskf a, Maskf b) { return {_mm256_or_ps(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator~(Maskf a) {
  return {_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
}
HOTLOOP_INLINE Vecf select(Maskf m, Vecf a, Vecf b) { return _mm256_blendv_ps(b.v, a.v, m.m); }

// Past the caches, to an address that is a multiple of a vector; streams_done() before anybody else may read
// it.
HOTLOOP_INLINE void stream(Vecf a, float* p) { _mm256_stream_ps(p, a.v); }
HOTLOOP_INLINE void streams_done() { _mm_sfence(); }

// rows[i] lane j <-> rows[j] lane i
HOTLOOP_INLINE void transpose(Vecf (&rows)[8]) {
  __m256 pairs[8];
  __m256 quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int at = i / 2 * 4 + i % 2;  // pairs 0, 1, 4, 5: two rows of each half
    quads[2 * i] = _mm256_shuffle_ps(pairs[at], pairs[at + 2], 0x44);
    quads[2 * i + 1] = _mm256_shuffle_ps(pairs[at], pairs[at + 2], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// For the polynomials of vec_math.h.
HOTLOOP_INLINE Vecf round_nearest(Vecf a) {
  return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// The bits of t moved left, to where a float has its exponent (see vec_math.h).
HOTLOOP_INLINE Vecf exponent_bits(Vecf t) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.v), 23));
}
// One of sixteen constants for each lane, by the lowest bits of a float.
struct Places {
  __m256i at;
};
HOTLOOP_INLINE Places places(Vecf a) { return {_mm256_castps_si256(a.v)}; }
HOTLOOP_INLINE Vecf pick(const float (&table)[16], Places places) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), places.at);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), places.at);
  // bit 3 of the place as the sign that the blend looks at
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(places.at, 28)));
}
// a * 2^n for whole n in [-252, 254]: two exact shifts of the exponent, so that denormal results are
// rounded once and overflow is inf.
HOTLOOP_INLINE Vecf scale_exponent(Vecf a, Vecf n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i p = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i q = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a.v, _mm256_castsi256_ps(p)), _mm256_castsi256_ps(q));
}
// a = mantissa * 2^exponent with mantissa in [sqrt(1/2), sqrt(2)), for positive normal a.
HOTLOOP_INLINE Vecf split_exponent(Vecf a, Vecf& mantissa) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i sqrt_half = _mm256_castps_si256(_mm256_set1_ps(0.70710678118654752f));
  const __m256i exponent = _mm256_srai_epi32(_mm256_sub_epi32(bits, sqrt_half), 23);
  mantissa = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(exponent, 23)));
  return _mm256_cvtepi32_ps(exponent);
}
// |a| with the sign of b.
HOTLOOP_INLINE Vecf copy_sign(Vecf a, Vecf b) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(sign, a.v), _mm256_and_ps(sign, b.v));
}

// ((0+4)+(2+6)) + ((1+5)+(3+7))
HOTLOOP_INLINE float sum(Vecf a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
HOTLOOP_INLINE float max_lane(Vecf a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace hotloop::avx2
