// SPDX-License-Identifier: Apache-2.0
// exp, expm1, log, tanh, sigmoid, erf, normal_cdf and log1p_exp of a vector. One lane: libm, for float and
// double. More lanes (float only): a range reduction and a minimax polynomial fitted by weighted least
// squares until the error levels out; at most 2 ulp (expm1: 3.4), with the special values of libm.
#pragma once

#include <math.h>

#include "kernels/normal_cdf.h"
#include "kernels/vec.h"

namespace hotloop::HOTLOOP_ISA {

#define HOTLOOP_LIBM(name)                                           \
  HOTLOOP_INLINE float libm_##name(float x) { return ::name##f(x); } \
  HOTLOOP_INLINE double libm_##name(double x) { return ::name(x); }
HOTLOOP_LIBM(exp)
HOTLOOP_LIBM(expm1)
HOTLOOP_LIBM(log)
HOTLOOP_LIBM(log1p)
HOTLOOP_LIBM(tanh)
HOTLOOP_LIBM(erf)
#undef HOTLOOP_LIBM

// c[0] + x*c[1] + ... by Horner's rule; c must be a constant, so that it is unrolled into broadcasts.
template <class V, int count>
HOTLOOP_INLINE V polynomial(V x, const float (&c)[count]) {
  V sum(c[count - 1]);
#pragma GCC unroll 16
  for (int i = count - 2; i >= 0; --i) sum = fma(sum, x, V(c[i]));
  return sum;
}

// exp(r) - 1 = r + r^2 P(r) for |r| <= ln2/2
template <class V>
HOTLOOP_INLINE V expm1_near_zero(V r) {
  constexpr float c[] = {4.999999404e-1f, 1.666651964e-1f, 4.166839272e-2f, 8.368780836e-3f, 1.381446491e-3f};
  return fma(r * r, polynomial(r, c), r);
}

// x = n ln2 + r;  exp(x) = 2^n exp(r)
template <class V>
HOTLOOP_INLINE V exp_lanes(V x) {
  // Beyond these ends the result is 0 or inf; min and max give the second operand for NaN, so it stays.
  const V limited = min(V(89.0f), max(V(-104.0f), x));
  const V n = round_nearest(limited * V(1.44269504f));
  V r = fnma(n, V(0.693147182f), limited);
  r = fnma(n, V(-1.90465421e-9f), r);  // ln2 minus its float
  return scale_exponent(V(1.0f) + expm1_near_zero(r), n);
}

template <class V>
HOTLOOP_INLINE V expm1_lanes(V x) {
  const V y = select(abs(x) < V(0.34657359f), expm1_near_zero(x), exp_lanes(x) - V(1.0f));
  return copy_sign(y, x);  // -0 is its own result
}

// log(1 + f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1], plus n ln2 in two parts.
template <class V>
HOTLOOP_INLINE V log_near_one(V f, V n) {
  constexpr float c[] = {3.333331347e-1f,  -2.500000894e-1f, 2.000211924e-1f,
                         -1.666799635e-1f, 1.421955079e-1f,  -1.240559146e-1f,
                         1.188817471e-1f,  -1.167564094e-1f, 6.746601313e-2f};
  const V square = f * f;
  V tail = fma(n, V(-2.12194440e-4f), square * (f * polynomial(f, c)));
  tail = fma(square, V(-0.5f), tail);
  return fma(n, V(0.693359375f), f + tail);  // 0.693359375 n is exact: 10 bits times 8
}

template <class V>
HOTLOOP_INLINE V log_lanes(V x) {
  const V smallest_normal(1.17549435e-38f);
  const auto denormal = x < smallest_normal;
  const V normal = select(denormal, x * V(8388608.0f), x);  // 2^23
  V mantissa;
  const V exponent = split_exponent(normal, mantissa);
  const V n = select(denormal, exponent - V(23.0f), exponent);
  V y = log_near_one(mantissa - V(1.0f), n);
  y = select(x < V::zero(), V(__builtin_nanf("")), y);
  y = select(x == V::zero(), V(-__builtin_inff()), y);
  return select(x < V(__builtin_inff()), y, x);  // inf and NaN are their own logarithm
}

// log(1 + u) for u in [0, 1], relative to u even when u is tiny.
template <class V>
HOTLOOP_INLINE V log1p_lanes(V u) {
  const auto upper = V(0.41421356f) < u;
  const V f = select(upper, fma(u, V(0.5f), V(-0.5f)), u);  // (1 + u) / 2 - 1
  return log_near_one(f, select(upper, V(1.0f), V::zero()));
}

// Moves the exponent of t = n + 1.5 * 2^23 + 127 + ... into place: see exponent_bits. One multiply-add then
// rounds to a whole number n, n is what is left when kRound is taken off again, and 2^n costs a shift.
constexpr float kRound = 12582912.0f + 127.0f;

// (1 - e) / (1 + e) of |x|, e = exp(-2|x|) = s (1 - q), s = 2^n: near 0 s is 1, and the numerator is q
// itself.
template <class V>
HOTLOOP_INLINE V tanh_lanes(V x) {
  constexpr float c[] = {-2.0f, 1.333323881f, -6.666696719e-1f, 2.677141506e-1f, -8.894869675e-2f};
  const V limited = min(V(10.0f), abs(x));  // the second operand for NaN: it stays
  const V t = fma(limited, V(-2.88539008f), V(kRound));
  const V s = exponent_bits(t);
  const V r = fma(t - V(kRound), V(0.346573591f), limited);  // ln2/2: what it lacks vanishes beside 1
  const V q = fma(r * r, polynomial(r, c), r + r);           // 1 - exp(-2r)
  return copy_sign(fma(s, q, V(1.0f) - s) / fnma(s, q, V(1.0f) + s), x);  // -0 is its own result
}

// s / (s + p) with s = 2^n near exp(x) and p = s exp(-x) = k - k r + ..., both times k = 2^23: so s reaches 0
// where the result does, at 2^-150, before its exponent wraps around. At 60 the result has long been 1.
// s + p is rounded once: s + k is exact, or what it loses of s joins the terms that are small beside k.
template <class V>
HOTLOOP_INLINE V sigmoid_lanes(V x) {
  constexpr float k = 8388608.0f;
  constexpr float c[] = {-k,
                         4.999999404e-1f * k,
                         -1.666651964e-1f * k,
                         4.166839272e-2f * k,
                         -8.368780836e-3f * k,
                         1.381446491e-3f * k};
  const V limited = min(V(60.0f), max(V(-103.972077f), x));  // -150 ln2
  const V t = fma(limited, V(1.44269504f), V(kRound + 23.0f));
  const V n = t - V(kRound + 23.0f);
  V r = fnma(n, V(0.693147182f), limited);
  r = fnma(n, V(-1.90465421e-9f), r);  // ln2 minus its float
  const V s = exponent_bits(t);
  const V most = s + V(k), lost = s - (most - V(k));
  return s / (most + fma(polynomial(r, c), r, lost));
}

// small: x + x P(x^2);  large: 1 - exp(-Q(|x|)), Q the polynomial of -log(erfc), |x| ended at 4 where the
// result has long been 1.
template <class V>
HOTLOOP_INLINE V erf_lanes(V x) {
  constexpr float p[] = {1.283791661e-1f, -3.761263490e-1f, 1.128369719e-1f, -2.685949951e-2f,
                         5.201286171e-3f, -8.145596948e-4f, 8.382387750e-5f};
  constexpr float q[] = {1.664390875e-4f,  1.127797246e+0f, 6.369760036e-1f, 1.041137427e-1f,
                         -2.231524885e-2f, 3.065499710e-3f, -1.982207032e-4f};
  const V small = fma(x, polynomial(x * x, p), x);
  const V large = V(1.0f) - exp_lanes(-polynomial(min(V(4.0f), abs(x)), q));
  return select(abs(x) < V(0.92f), small, copy_sign(large, x));
}

#define HOTLOOP_VEC_MATH(name)                 \
  template <class real>                        \
  HOTLOOP_INLINE Vec<real> name(Vec<real> x) { \
    if constexpr (Vec<real>::width == 1) {     \
      return Vec<real>(libm_##name(x.v));      \
    } else {                                   \
      return name##_lanes(x);                  \
    }                                          \
  }
HOTLOOP_VEC_MATH(exp)
HOTLOOP_VEC_MATH(expm1)
HOTLOOP_VEC_MATH(log)
HOTLOOP_VEC_MATH(log1p)  // lanes: [0, 1] only
HOTLOOP_VEC_MATH(erf)
#undef HOTLOOP_VEC_MATH

template <class real>
HOTLOOP_INLINE Vec<real> tanh(Vec<real> x) {
  using V = Vec<real>;
  if constexpr (V::width > 1) {
    return tanh_lanes(x);
  } else {
    return V(static_cast<real>(libm_tanh(static_cast<typename V::wide>(x.v))));
  }
}

// 1 / (1 + exp(-x)), full precision at both ends
template <class real>
HOTLOOP_INLINE Vec<real> sigmoid(Vec<real> x) {
  using V = Vec<real>;
  if constexpr (V::width > 1) {
    return sigmoid_lanes(x);
  } else {
    using wide = typename V::wide;
    const bool negative = x.v < real(0);
    const wide magnitude = static_cast<wide>(negative ? -x.v : x.v), e = libm_exp(-magnitude);
    return V(static_cast<real>((negative ? e : wide(1)) / (wide(1) + e)));
  }
}

// (1 + erf(x / sqrt(2))) / 2
template <class real>
HOTLOOP_INLINE Vec<real> normal_cdf(Vec<real> x) {
  using V = Vec<real>;
  if constexpr (requires { places(x); }) {
    return normal_cdf_by_table(x);
  } else {
    return V(static_cast<real>(0.5)) * (V(1) + erf(x * V(static_cast<real>(0.70710678118654752440))));
  }
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
template <class real>
HOTLOOP_INLINE Vec<real> log1p_exp(Vec<real> x) {
  return max(Vec<real>::zero(), x) + log1p(exp(-abs(x)));
}

}  // namespace hotloop::HOTLOOP_ISA
