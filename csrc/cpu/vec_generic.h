// SPDX-License-Identifier: Apache-2.0
// One lane of plain C++: the fallback on any machine, and the unit that also runs float64.
#pragma once

#include <math.h>

namespace hotloop::generic {

template <class real>
struct Vec {
  using scalar = real;
  using wide = double;  // for functions whose float form in libm is off by 2 ulp and more
  static constexpr int64 width = 1;
  real v;

  Vec() = default;
  HOTLOOP_INLINE explicit Vec(real x) : v(x) {}
  static HOTLOOP_INLINE Vec zero() { return Vec(real(0)); }
  static HOTLOOP_INLINE Vec load(const real* p) { return Vec(*p); }
  static HOTLOOP_INLINE Vec load_n(const real* p, int64 n) { return n > 0 ? Vec(*p) : zero(); }
  HOTLOOP_INLINE void store(real* p) const { *p = v; }
  HOTLOOP_INLINE void store_n(real* p, int64 n) const {
    if (n > 0) *p = v;
  }
};

template <class real>
struct Mask {
  bool m;

  static HOTLOOP_INLINE Mask first(int64 n) { return {n > 0}; }
  static HOTLOOP_INLINE Mask of_bits(std::uint32_t bits) { return {(bits & 1) != 0}; }
};

HOTLOOP_INLINE void streams_done() {}  // no store goes past the caches

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
// No fused instruction on the baseline machine; a libm call would be slower and no more useful.
template <class real>
HOTLOOP_INLINE Vec<real> fma(Vec<real> a, Vec<real> b, Vec<real> c) {
  return Vec<real>(a.v * b.v + c.v);
}
template <class real>
HOTLOOP_INLINE Vec<real> fnma(Vec<real> a, Vec<real> b, Vec<real> c) {
  return Vec<real>(c.v - a.v * b.v);
}
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
  return Vec<real>(static_cast<real>(::sqrt(a.v)));
}
template <class real>
HOTLOOP_INLINE Vec<real> abs(Vec<real> a) {
  return Vec<real>(static_cast<real>(::fabs(a.v)));
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
template <class real>
HOTLOOP_INLINE real sum(Vec<real> a) {
  return a.v;
}
template <class real>
HOTLOOP_INLINE real max_lane(Vec<real> a) {
  return a.v;
}
template <class real>
HOTLOOP_INLINE void transpose(Vec<real> (&)[1]) {}

}  // namespace hotloop::generic
