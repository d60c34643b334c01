// SPDX-License-Identifier: Apache-2.0
// Sixteen floats in a zmm register: one panel of a packed matrix. Comparisons give mask registers, so tails
// cost no more than full vectors. Needs F, VL, DQ and BW, which every such processor since 2017 has.
#pragma once

#include "cpu/intrinsics.h"

namespace hotloop::avx512 {

template <class real>
struct Vec;
template <class real>
struct Mask;

// Lanes below n set. n in [0, 16], which an analyzer does not see of the ends of loops.
HOTLOOP_INLINE __mmask16 lanes_below(int64 n) {
  return static_cast<__mmask16>((1u << n) - 1u);  // NOLINT(clang-analyzer-core.BitwiseShift)
}

template <>
struct Vec<float> {
  using scalar = float;
  static constexpr int64 width = 16;
  __m512 v;

  Vec() = default;
  HOTLOOP_INLINE Vec(__m512 x) : v(x) {}
  HOTLOOP_INLINE explicit Vec(float x) : v(_mm512_set1_ps(x)) {}
  static HOTLOOP_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static HOTLOOP_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static HOTLOOP_INLINE Vec load_n(const float* p, int64 n) {
    return _mm512_maskz_loadu_ps(lanes_below(n), p);
  }
  HOTLOOP_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  HOTLOOP_INLINE void store_n(float* p, int64 n) const { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
};

template <>
struct Mask<float> {
  __mmask16 m;

  static HOTLOOP_INLINE Mask first(int64 n) { return {lanes_below(n)}; }
  static HOTLOOP_INLINE Mask of_bits(std::uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
};

using Vecf = Vec<float>;
using Maskf = Mask<float>;

HOTLOOP_INLINE Vecf operator+(Vecf a, Vecf b) { return _mm512_add_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a, Vecf b) { return _mm512_sub_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator*(Vecf a, Vecf b) { return _mm512_mul_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator/(Vecf a, Vecf b) { return _mm512_div_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a) { return _mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f)); }
HOTLOOP_INLINE Vecf fma(Vecf a, Vecf b, Vecf c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
HOTLOOP_INLINE Vecf fnma(Vecf a, Vecf b, Vecf c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
HOTLOOP_INLINE Vecf max(Vecf a, Vecf b) { return _mm512_max_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf min(Vecf a, Vecf b) { return _mm512_min_ps(a.v, b.v); }
HOTLOOP_INLINE Vecf sqrt(Vecf a) { return _mm512_sqrt_ps(a.v); }
HOTLOOP_INLINE Vecf abs(Vecf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v); }
HOTLOOP_INLINE Maskf operator<(Vecf a, Vecf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
HOTLOOP_INLINE Maskf operator<=(Vecf a, Vecf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
HOTLOOP_INLINE Maskf operator==(Vecf a, Vecf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
HOTLOOP_INLINE Maskf is_nan(Vecf a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
HOTLOOP_INLINE Maskf operator&(Maskf a, Maskf b) { return {_kand_mask16(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator|(Maskf a, Maskf b) { return {_kor_mask16(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator~(Maskf a) { return {_knot_mask16(a.m)}; }
HOTLOOP_INLINE Vecf select(Maskf m, Vecf a, Vecf b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }

// Past the caches, to a full line; streams_done() before anybody else may read it.
HOTLOOP_INLINE void stream(Vecf a, float* line) { _mm512_stream_ps(line, a.v); }
HOTLOOP_INLINE void streams_done() { _mm_sfence(); }

// rows[i] lane j <-> rows[j] lane i: first inside the 4 x 4 blocks, then the blocks among themselves.
HOTLOOP_INLINE void transpose(Vecf (&rows)[16]) {
  __m512 pairs[16];
  __m512 quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int at = i / 2 * 4 + i % 2;
    quads[2 * i] = _mm512_shuffle_ps(pairs[at], pairs[at + 2], 0x44);
    quads[2 * i + 1] = _mm512_shuffle_ps(pairs[at], pairs[at + 2], 0xEE);
  }
  // Block b of quads[4r + c] is column c of the block at (r, b), as a row of four.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88);  // blocks 0 and 2
    const __m512 odd01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xDD);   // blocks 1 and 3
    const __m512 even23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xDD);
    rows[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    rows[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    rows[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xDD);
    rows[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xDD);
  }
}

// The transpose of a square in memory, row i at p + i*stride: columns[i] lane j = p[j*stride + i]. Blocks of
// 4 x 4 go where they belong as they are loaded, which leaves half of the shuffles.
HOTLOOP_INLINE void load_transposed(const float* p, int64 stride, Vecf (&columns)[16]) {
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m512 rows[4];  // block b of rows[r]: row 4b + r of the square, columns 4c ... 4c + 3
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const float* at = p + r * stride + 4 * c;
      const __m256 low =
          _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + 4 * stride), 1);
      const __m512 most = _mm512_insertf32x4(_mm512_castps256_ps512(low), _mm_loadu_ps(at + 8 * stride), 2);
      rows[r] = _mm512_insertf32x4(most, _mm_loadu_ps(at + 12 * stride), 3);
    }
    const __m512 low01 = _mm512_unpacklo_ps(rows[0], rows[1]);
    const __m512 high01 = _mm512_unpackhi_ps(rows[0], rows[1]);
    const __m512 low23 = _mm512_unpacklo_ps(rows[2], rows[3]);
    const __m512 high23 = _mm512_unpackhi_ps(rows[2], rows[3]);
    columns[4 * c] = _mm512_shuffle_ps(low01, low23, 0x44);
    columns[4 * c + 1] = _mm512_shuffle_ps(low01, low23, 0xEE);
    columns[4 * c + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    columns[4 * c + 3] = _mm512_shuffle_ps(high01, high23, 0xEE);
  }
}

// For the polynomials of vec_math.h.
HOTLOOP_INLINE Vecf round_nearest(Vecf a) {
  return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// The bits of t moved left, to where a float has its exponent (see vec_math.h).
HOTLOOP_INLINE Vecf exponent_bits(Vecf t) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t.v), 23));
}
// One of 32 constants for each lane, by the lowest bits of a float.
struct Places {
  __m512i at;
};
HOTLOOP_INLINE Places places(Vecf a) { return {_mm512_castps_si512(a.v)}; }
HOTLOOP_INLINE Vecf pick(const float (&table)[32], Places places) {
  return _mm512_permutex2var_ps(_mm512_loadu_ps(table), places.at, _mm512_loadu_ps(table + 16));
}
// a * 2^n for whole n, rounded once; overflow is inf.
HOTLOOP_INLINE Vecf scale_exponent(Vecf a, Vecf n) { return _mm512_scalef_ps(a.v, n.v); }
// a = mantissa * 2^exponent with mantissa in [sqrt(1/2), sqrt(2)), for positive normal a.
HOTLOOP_INLINE Vecf split_exponent(Vecf a, Vecf& mantissa) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i sqrt_half = _mm512_castps_si512(_mm512_set1_ps(0.70710678118654752f));
  const __m512i exponent = _mm512_srai_epi32(_mm512_sub_epi32(bits, sqrt_half), 23);
  mantissa = _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(exponent, 23)));
  return _mm512_cvtepi32_ps(exponent);
}
// |a| with the sign of b.
HOTLOOP_INLINE Vecf copy_sign(Vecf a, Vecf b) {
  const __m512i sign = _mm512_castps_si512(_mm512_set1_ps(-0.0f));
  // 0xAC: the third operand where the first has a bit, else the second
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(a.v), _mm512_castps_si512(b.v), 0xAC));
}

// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
HOTLOOP_INLINE float sum(Vecf a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
HOTLOOP_INLINE float max_lane(Vecf a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace hotloop::avx512
