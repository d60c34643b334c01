// SPDX-License-Identifier: Apache-2.0
// exp, expm1, log, tanh, sigmoid, erf and log1p_exp of a vector. One lane: libm, for float and double. More
// lanes (float only): a range reduction and a minimax polynomial fitted by weighted least squares until the
// error levels out; below 2.3 ulp everywhere (expm1: 3.4), with the special values of libm.
#pragma once

#include <math.h>

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

// small: x + x^3 P(x^2);  large: 1 - 2 / (exp(2|x|) + 1), which reaches 1 exactly.
template <class V>
HOTLOOP_INLINE V tanh_lanes(V x) {
  constexpr float c[] = {-3.333328068e-1f, 1.333144158e-1f, -5.373971164e-2f, 2.063907869e-2f,
                         -5.704978481e-3f};
  const V square = x * x;
  const V small = fma(x * square, polynomial(square, c), x);
  const V large = V(1.0f) - V(2.0f) / (exp_lanes(abs(x) + abs(x)) + V(1.0f));
  return copy_sign(select(abs(x) < V(0.625f), small, large), x);
}

// x f(|x|), f = erf(a) / a by a polynomial of degree 5 in each sixteenth of [0, 4): half the operations of
// the form below, with coefficients picked from registers. Beyond 3.92 erf rounds to 1; the end is a number
// near it at which this is 1 too, so that 1 + erf vanishes far to the left.
template <class V>
HOTLOOP_INLINE V erf_by_table(V x) {
  alignas(64) constexpr float c[6][16] = {
      {1.122529626f, 1.077645063f, 9.971854091e-01f, 8.960857987e-01f, 7.896784544e-01f, 6.895782351e-01f,
       6.021192074e-01f, 5.290613770e-01f, 4.693392813e-01f, 4.207229614e-01f, 3.808741570e-01f,
       3.478094339e-01f, 3.199968338e-01f, 2.962957621e-01f, 2.758619785e-01f, 2.580645084e-01f},
      {-2.328873798e-02f, -6.486152112e-02f, -9.347435087e-02f, -1.060973555e-01f, -1.047565490e-01f,
       -9.440335631e-02f, -8.025337756e-02f, -6.606873870e-02f, -5.376452580e-02f, -4.386489466e-02f,
       -3.616440669e-02f, -3.021906130e-02f, -2.559456602e-02f, -2.194689028e-02f, -1.902481169e-02f,
       -1.664930023e-02f},
      {-2.285264432e-02f, -1.803095452e-02f, -1.032905374e-02f, -2.483184449e-03f, 3.386988072e-03f,
       6.516713183e-03f, 7.317170966e-03f, 6.712587085e-03f, 5.553967785e-03f, 4.366969690e-03f,
       3.372493433e-03f, 2.609606134e-03f, 2.043516841e-03f, 1.624897355e-03f, 1.311916625e-03f,
       1.074126572e-03f},
      {8.652752731e-04f, 2.234151820e-03f, 2.739760326e-03f, 2.368764719e-03f, 1.503587002e-03f,
       6.098906742e-04f, -2.146839688e-05f, -3.329914180e-04f, -4.104810359e-04f, -3.693477192e-04f,
       -2.920806874e-04f, -2.187568898e-04f, -1.614815847e-04f, -1.199342951e-04f, -9.039657743e-05f,
       -6.928525545e-05f},
      {4.142748658e-04f, 2.449149615e-04f, 7.736754014e-06f, -1.734377729e-04f, -2.356934419e-04f,
       -1.970272860e-04f, -1.163548586e-04f, -4.402897321e-05f, -4.974861554e-07f, 1.709387470e-05f,
       1.969262121e-05f, 1.645674638e-05f, 1.223212257e-05f, 8.732424249e-06f, 6.210444099e-06f,
       4.470745353e-06f},
      {-1.900748794e-05f, -4.516039553e-05f, -4.536444976e-05f, -2.491168198e-05f, -6.190635418e-07f,
       1.406670344e-05f, 1.651392267e-05f, 1.176307342e-05f, 5.771226824e-06f, 1.635218496e-06f,
       -3.005074802e-07f, -8.442933108e-07f, -7.958476544e-07f, -5.984904305e-07f, -4.172943875e-07f,
       -2.862384463e-07f},
  };
  const V limited = min(V(3.9200006f), max(V(-3.9200006f), x));  // the second operand for NaN: it stays
  const V scaled = abs(limited) * V(4.0f);
  const auto at = places(scaled);
  const V t = (scaled - truncate(scaled)) - V(0.5f);
  V sum = pick(c[5], at);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) sum = fma(sum, t, pick(c[i], at));
  return limited * sum;
}

// small: x + x P(x^2);  large: 1 - exp(-Q(|x|)), Q the polynomial of -log(erfc), |x| ended at 4 where the
// result has long been 1.
template <class V>
HOTLOOP_INLINE V erf_lanes(V x) {
  if constexpr (requires { places(x); }) return erf_by_table(x);
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
HOTLOOP_VEC_MATH(tanh)
HOTLOOP_VEC_MATH(erf)
#undef HOTLOOP_VEC_MATH

// 1 / (1 + exp(-x)) without the exponential of a positive number: full precision at both ends.
template <class real>
HOTLOOP_INLINE Vec<real> sigmoid(Vec<real> x) {
  using V = Vec<real>;
  const V e = exp(-abs(x));
  return select(x < V::zero(), e, V(1)) / (V(1) + e);
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
template <class real>
HOTLOOP_INLINE Vec<real> log1p_exp(Vec<real> x) {
  return max(Vec<real>::zero(), x) + log1p(exp(-abs(x)));
}

}  // namespace hotloop::HOTLOOP_ISA
