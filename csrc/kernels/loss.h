// SPDX-License-Identifier: Apache-2.0
// The element-wise losses of loss.def: value and slope of l(pred, target) for one vector. A NaN in either
// operand reaches both results: min and max return their second operand for NaN.
#pragma once

#include "kernels/vec_math.h"

namespace hotloop::HOTLOOP_ISA {

template <class real>
struct LossTerm {
  Vec<real> value, slope;  // l and dl/dpred
};

// l = e^2, e = pred - target
struct Mse {
  template <class real>
  static HOTLOOP_INLINE LossTerm<real> eval(Vec<real> pred, Vec<real> target, Vec<real>, Vec<real>) {
    const Vec<real> e = pred - target;
    return {e * e, e + e};
  }
};

// l = |e|; the slope at 0 is 0
struct Mae {
  template <class real>
  static HOTLOOP_INLINE LossTerm<real> eval(Vec<real> pred, Vec<real> target, Vec<real>, Vec<real>) {
    const Vec<real> e = pred - target;
    const Vec<real> one(real(1));
    const Vec<real> negative = select(e < Vec<real>::zero(), -one, e);  // e itself: 0 or NaN
    return {abs(e), select(Vec<real>::zero() < e, one, negative)};
  }
};

// l = e^2 / 2 if |e| <= delta, else delta (|e| - delta / 2):  with c = min(|e|, delta), c (|e| - c / 2)
struct Huber {
  template <class real>
  static HOTLOOP_INLINE LossTerm<real> eval(Vec<real> pred, Vec<real> target, Vec<real>, Vec<real> delta) {
    const Vec<real> e = pred - target;
    const Vec<real> size = abs(e);
    const Vec<real> c = min(delta, size);
    return {c * fnma(Vec<real>(real(0.5)), c, size), max(-delta, min(delta, e))};
  }
};

// l = (1 - t) softplus(x) + w t softplus(-x);  l' = (1 - t) sigmoid(x) - w t sigmoid(-x), w = pos_weight.
// torch's loss in the form whose terms do not cancel; u = exp(-|x|) serves all four functions.
struct BceWithLogits {
  template <class real>
  static HOTLOOP_INLINE LossTerm<real> eval(Vec<real> x, Vec<real> t, Vec<real> pos_weight, Vec<real>) {
    using V = Vec<real>;
    const V zero = V::zero();
    const V one(real(1));
    const V u = exp(-abs(x));
    const V log_term = log1p(u);
    const V major = one / (one + u);  // sigmoid(|x|)
    const V minor = u * major;        // sigmoid(-|x|)
    const auto positive = zero <= x;
    const V negative_part = one - t;
    const V positive_part = pos_weight * t;
    const V value = fma(negative_part, max(zero, x) + log_term, positive_part * (max(zero, -x) + log_term));
    const V slope =
        fnma(positive_part, select(positive, minor, major), negative_part * select(positive, major, minor));
    return {value, slope};
  }
};

}  // namespace hotloop::HOTLOOP_ISA
