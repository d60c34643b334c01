// SPDX-License-Identifier: Apache-2.0
// One lane: a thread's own number, so that the functors of math.h, loss.h and optimizer.h are one text for
// processor and GPU. Names as kernels/vec.h lists them. float only.
#pragma once

#include <math.h>

#include "core/host_device.h"
#include "core/types.h"

namespace hotloop::cuda {

template <class real>
struct Vec {
  using scalar = real;
  using wide = real;  // a GPU has few units for doubles
  static constexpr int64 width = 1;
  real v;

  Vec() = default;
  HOTLOOP_INLINE explicit Vec(real x) : v(x) {}
  static HOTLOOP_INLINE Vec zero() { return Vec(real(0)); }
  static HOTLOOP_INLINE Vec load(const real* p) { return Vec(*p); }
  HOTLOOP_INLINE void store(real* p) const { *p = v; }
};

template <class real>
struct Mask {
  bool m;
};

template <class real>
HOTLOOP_INLINE Vec<real> operator+(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v + b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> operator-(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v - b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> operator*(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v * b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> operator/(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v / b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> operator-(Vec<real> a) {
  return Vec<real>(-a.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> fma(Vec<real> a, Vec<real> b, Vec<real> c) {
  return Vec<real>(::fmaf(a.v, b.v, c.v));
}
template <class real>
HOTLOOP_INLINE Vec<real> fnma(Vec<real> a, Vec<real> b, Vec<real> c) {
  return Vec<real>(::fmaf(-a.v, b.v, c.v));
}
// The second operand if either is NaN, which the device's own fmaxf and fminf do not give.
template <class real>
HOTLOOP_INLINE Vec<real> max(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v > b.v ? a.v : b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> min(Vec<real> a, Vec<real> b) {
  return Vec<real>(a.v < b.v ? a.v : b.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> sqrt(Vec<real> a) {
  return Vec<real>(::sqrtf(a.v));
}
template <class real>
HOTLOOP_INLINE Vec<real> abs(Vec<real> a) {
  return Vec<real>(::fabsf(a.v));
}
template <class real>
HOTLOOP_INLINE Mask<real> operator<(Vec<real> a, Vec<real> b) {
  return {a.v < b.v};
}
template <class real>
HOTLOOP_INLINE Mask<real> operator<=(Vec<real> a, Vec<real> b) {
  return {a.v <= b.v};
}
template <class real>
HOTLOOP_INLINE Mask<real> operator==(Vec<real> a, Vec<real> b) {
  return {a.v == b.v};
}
template <class real>
HOTLOOP_INLINE Mask<real> is_nan(Vec<real> a) {
  return {a.v != a.v};
}
template <class real>
HOTLOOP_INLINE Mask<real> operator&(Mask<real> a, Mask<real> b) {
  return {a.m && b.m};
}
template <class real>
HOTLOOP_INLINE Mask<real> operator|(Mask<real> a, Mask<real> b) {
  return {a.m || b.m};
}
template <class real>
HOTLOOP_INLINE Mask<real> operator~(Mask<real> a) {
  return {!a.m};
}
template <class real>
HOTLOOP_INLINE Vec<real> select(Mask<real> m, Vec<real> a, Vec<real> b) {
  return m.m ? a : b;
}

}  // namespace hotloop::cuda
