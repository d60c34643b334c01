// SPDX-License-Identifier: Apache-2.0
// Four floats in a q register of any 64-bit ARM processor, with FMA. There are no masked loads and stores: a
// part of a vector goes in pieces of two and one, which touch exactly its elements.
#pragma once

#include "cpu/intrinsics.h"

// Tells this unit from the generic one of the same machine, whose baseline has the same instructions.
#define HOTLOOP_NEON

namespace hotloop::neon {

template <class real>
struct Vec;
template <class real>
struct Mask;

template <>
struct Vec<float> {
  using scalar = float;
  static constexpr int64 width = 4;
  float32x4_t v;

  Vec() = default;
  HOTLOOP_INLINE Vec(float32x4_t x) : v(x) {}
  HOTLOOP_INLINE explicit Vec(float x) : v(vdupq_n_f32(x)) {}
  static HOTLOOP_INLINE Vec zero() { return vdupq_n_f32(0.0f); }
  static HOTLOOP_INLINE Vec load(const float* p) { return vld1q_f32(p); }
  static HOTLOOP_INLINE Vec load_n(const float* p, int64 n) {
    if (n >= width) return load(p);
    if (n <= 0) return zero();
    const float32x2_t none = vdup_n_f32(0.0f);
    if (n == 1) return vcombine_f32(vld1_lane_f32(p, none, 0), none);
    return vcombine_f32(vld1_f32(p), n == 3 ? vld1_lane_f32(p + 2, none, 0) : none);
  }
  HOTLOOP_INLINE void store(float* p) const { vst1q_f32(p, v); }
  HOTLOOP_INLINE void store_n(float* p, int64 n) const {
    if (n >= width) return store(p);
    if (n >= 2) vst1_f32(p, vget_low_f32(v));
    if (n == 3) vst1q_lane_f32(p + 2, v, 2);
    if (n == 1) vst1q_lane_f32(p, v, 0);
  }
};

template <>
struct Mask<float> {
  uint32x4_t m;

  // n in [0, 4]
  static HOTLOOP_INLINE Mask first(int64 n) {
    constexpr std::uint32_t lanes[] = {0, 1, 2, 3};
    return {vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(static_cast<std::uint32_t>(n)))};
  }
  static HOTLOOP_INLINE Mask of_bits(std::uint32_t bits) {
    constexpr std::uint32_t lanes[] = {1, 2, 4, 8};
    return {vtstq_u32(vdupq_n_u32(bits), vld1q_u32(lanes))};
  }
};

using Vecf = Vec<float>;
using Maskf = Mask<float>;

HOTLOOP_INLINE Vecf operator+(Vecf a, Vecf b) { return vaddq_f32(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a, Vecf b) { return vsubq_f32(a.v, b.v); }
HOTLOOP_INLINE Vecf operator*(Vecf a, Vecf b) { return vmulq_f32(a.v, b.v); }
HOTLOOP_INLINE Vecf operator/(Vecf a, Vecf b) { return vdivq_f32(a.v, b.v); }
HOTLOOP_INLINE Vecf operator-(Vecf a) { return vnegq_f32(a.v); }
HOTLOOP_INLINE Vecf fma(Vecf a, Vecf b, Vecf c) { return vfmaq_f32(c.v, a.v, b.v); }
HOTLOOP_INLINE Vecf fnma(Vecf a, Vecf b, Vecf c) { return vfmsq_f32(c.v, a.v, b.v); }
HOTLOOP_INLINE Vecf sqrt(Vecf a) { return vsqrtq_f32(a.v); }
HOTLOOP_INLINE Vecf abs(Vecf a) { return vabsq_f32(a.v); }
HOTLOOP_INLINE Maskf operator<(Vecf a, Vecf b) { return {vcltq_f32(a.v, b.v)}; }
HOTLOOP_INLINE Maskf operator<=(Vecf a, Vecf b) { return {vcleq_f32(a.v, b.v)}; }
HOTLOOP_INLINE Maskf operator==(Vecf a, Vecf b) { return {vceqq_f32(a.v, b.v)}; }
HOTLOOP_INLINE Maskf operator&(Maskf a, Maskf b) { return {vandq_u32(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator|(Maskf a, Maskf b) { return {vorrq_u32(a.m, b.m)}; }
HOTLOOP_INLINE Maskf operator~(Maskf a) { return {vmvnq_u32(a.m)}; }
HOTLOOP_INLINE Maskf is_nan(Vecf a) { return ~(a == a); }
HOTLOOP_INLINE Vecf select(Maskf m, Vecf a, Vecf b) { return vbslq_f32(m.m, a.v, b.v); }
// Not fmax and fmin: those give NaN where either operand is NaN, not the second operand.
HOTLOOP_INLINE Vecf max(Vecf a, Vecf b) { return select(b < a, a, b); }
HOTLOOP_INLINE Vecf min(Vecf a, Vecf b) { return select(a < b, a, b); }

// One element of A for a tile of the matrix product: fmla multiplies by one lane of a register, so it is
// loaded as it is, and nothing is spent on copying it to every lane.
struct OneLane {
  float x;
};
HOTLOOP_INLINE Vecf fma(OneLane a, Vecf b, Vecf c) { return vfmaq_n_f32(c.v, b.v, a.x); }

// rows[i] lane j <-> rows[j] lane i
HOTLOOP_INLINE void transpose(Vecf (&rows)[4]) {
  const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(rows[0].v, rows[1].v));
  const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(rows[0].v, rows[1].v));
  const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(rows[2].v, rows[3].v));
  const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(rows[2].v, rows[3].v));
  rows[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
  rows[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
  rows[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
  rows[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
}

HOTLOOP_INLINE void streams_done() {}  // no store goes past the caches

// For the polynomials of vec_math.h.
HOTLOOP_INLINE Vecf round_nearest(Vecf a) { return vrndnq_f32(a.v); }
// The bits of t moved left, to where a float has its exponent (see vec_math.h).
HOTLOOP_INLINE Vecf exponent_bits(Vecf t) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t.v), 23));
}
// a * 2^n for whole n in [-252, 254]: two exact shifts of the exponent, so that denormal results are
// rounded once and overflow is inf.
HOTLOOP_INLINE Vecf scale_exponent(Vecf a, Vecf n) {
  const int32x4_t whole = vcvtq_s32_f32(n.v);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  const int32x4_t p = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t q = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return vmulq_f32(vmulq_f32(a.v, vreinterpretq_f32_s32(p)), vreinterpretq_f32_s32(q));
}
// a = mantissa * 2^exponent with mantissa in [sqrt(1/2), sqrt(2)), for positive normal a.
HOTLOOP_INLINE Vecf split_exponent(Vecf a, Vecf& mantissa) {
  const int32x4_t bits = vreinterpretq_s32_f32(a.v);
  const int32x4_t sqrt_half = vreinterpretq_s32_f32(vdupq_n_f32(0.70710678118654752f));
  const int32x4_t exponent = vshrq_n_s32(vsubq_s32(bits, sqrt_half), 23);
  mantissa = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(exponent, 23)));
  return vcvtq_f32_s32(exponent);
}
// |a| with the sign of b.
HOTLOOP_INLINE Vecf copy_sign(Vecf a, Vecf b) { return vbslq_f32(vdupq_n_u32(0x80000000u), b.v, a.v); }

// (0+1) + (2+3)
HOTLOOP_INLINE float sum(Vecf a) { return vpadds_f32(vpadd_f32(vget_low_f32(a.v), vget_high_f32(a.v))); }
HOTLOOP_INLINE float max_lane(Vecf a) { return vmaxvq_f32(a.v); }

}  // namespace hotloop::neon
