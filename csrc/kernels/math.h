// SPDX-License-Identifier: Apache-2.0
// One functor per line of unary.def and binary.def, in torch's formulas:
//   value(x, p0, p1)              f(x)
//   grad(saved, dout, p0, p1)     dout * f'(x), from what unary.def says is saved: x, or y = f(x)
// V is a vector of the unit being compiled; NaN gives NaN.
#pragma once

#include "kernels/vec_math.h"

namespace hotloop::HOTLOOP_ISA {

// V(x) of a constant: the functors are written for float and double alike.
template <class V>
HOTLOOP_INLINE V constant(double x) {
  return V(static_cast<typename V::scalar>(x));
}

struct Relu {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return max(V::zero(), x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return select(y <= V::zero(), V::zero(), dout);
  }
};

struct LeakyRelu {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V slope, V) {
    return select(V::zero() < x, x, x * slope);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V slope, V) {
    return select(V::zero() < y, dout, dout * slope);
  }
};

struct Elu {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V alpha, V) {
    return select(V::zero() < x, x, alpha * expm1(x));
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V alpha, V) {
    return select(V::zero() < y, dout, dout * (y + alpha));
  }
};

// scale * elu(x; alpha), the constants of Klambauer et al. 2017
struct Selu {
  static constexpr double kAlpha = 1.6732632423543772848170429916717;
  static constexpr double kScale = 1.0507009873554804934193349852946;

  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return select(V::zero() < x, constant<V>(kScale) * x, constant<V>(kScale * kAlpha) * expm1(x));
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return dout * select(V::zero() < y, constant<V>(kScale), y + constant<V>(kScale * kAlpha));
  }
};

// x Phi(x);  f' = Phi + x phi, phi = exp(-x^2/2) / sqrt(2 pi)
struct Gelu {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x * normal_cdf(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    const V pdf = constant<V>(0.39894228040143267794) * exp(constant<V>(-0.5) * x * x);
    return dout * fma(x, pdf, normal_cdf(x));
  }
};

// x/2 (1 + tanh(u)) = x s, s = sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3);  f' = s + x s (1 - s) 2 u'
// By the sigmoid, because it costs less than tanh and keeps its digits far to the left, where 1 + tanh
// cancels.
struct GeluTanh {
  static constexpr double kTwoBeta = 2 * 0.79788456080286535588;
  static constexpr double kCubic = 0.044715;

  template <class V>
  static HOTLOOP_INLINE V share(V x) {
    return sigmoid(x * fma(x * x, constant<V>(kTwoBeta * kCubic), constant<V>(kTwoBeta)));
  }
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x * share(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    const V one = constant<V>(1);
    const V s = share(x);
    const V slope = constant<V>(kTwoBeta) * fma(constant<V>(3 * kCubic), x * x, one);
    return dout * s * fma(x * (one - s), slope, one);
  }
};

// x s, s = sigmoid(x);  f' = s (1 + x (1 - s))
struct Silu {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x * sigmoid(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    const V one = constant<V>(1);
    const V s = sigmoid(x);
    return dout * s * fma(x, one - s, one);
  }
};

// x t, t = tanh(softplus(x)) = q / (q + 2) with w = exp(x), q = w (w + 2): one exponential, no cancellation.
// f' = t + x sigmoid(x) (1 - t^2), 1 - t^2 = 4 (q + 1) / (q + 2)^2
struct Mish {
  // Past 20, t is 1 and x dt is 0 in double as well; w^2 must not overflow.
  template <class V>
  static HOTLOOP_INLINE V limited(V x) {
    return min(constant<V>(20), x);
  }
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    const V two = constant<V>(2);
    const V w = exp(limited(x));
    const V q = w * (w + two);
    return x * (q / (q + two));
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    const V one = constant<V>(1);
    const V two = constant<V>(2);
    const V w = exp(limited(x));
    const V q = w * (w + two);
    const V inverse = one / (q + two);
    const V dt = constant<V>(4) * (q + one) * inverse * inverse * (w / (one + w));
    return dout * fma(limited(x), dt, q * inverse);
  }
};

struct Tanh {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return tanh(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return dout * fnma(y, y, constant<V>(1));
  }
};

struct Sigmoid {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return sigmoid(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return dout * (y * (constant<V>(1) - y));
  }
};

// log(1 + exp(beta x)) / beta, and x itself where beta x > threshold
struct Softplus {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V beta, V threshold) {
    const V z = beta * x;
    return select(threshold < z, x, log1p_exp(z) / beta);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V beta, V threshold) {
    const V z = beta * x;
    return select(threshold < z, dout, dout * sigmoid(z));
  }
};

struct Exp {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return exp(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return dout * y;
  }
};

struct Log {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return log(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    return dout / x;
  }
};

struct Sqrt {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return sqrt(x);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return dout / (y + y);
  }
};

struct Square {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x * x;
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    return dout * (x + x);
  }
};

struct Abs {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return abs(x);
  }
  // dout * sign(x): the last product is 0 for x = 0 and NaN for NaN.
  template <class V>
  static HOTLOOP_INLINE V grad(V x, V dout, V, V) {
    return select(V::zero() < x, dout, select(x < V::zero(), -dout, dout * x));
  }
};

struct Reciprocal {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return constant<V>(1) / x;
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V y, V dout, V, V) {
    return -dout * y * y;
  }
};

struct Affine {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V scale, V shift) {
    return fma(scale, x, shift);
  }
  template <class V>
  static HOTLOOP_INLINE V grad(V, V dout, V scale, V) {
    return dout * scale;
  }
};

struct Add {
  template <class V>
  static HOTLOOP_INLINE V value(V a, V b) {
    return a + b;
  }
};

struct Sub {
  template <class V>
  static HOTLOOP_INLINE V value(V a, V b) {
    return a - b;
  }
};

struct Mul {
  template <class V>
  static HOTLOOP_INLINE V value(V a, V b) {
    return a * b;
  }
};

struct Div {
  template <class V>
  static HOTLOOP_INLINE V value(V a, V b) {
    return a / b;
  }
};

}  // namespace hotloop::HOTLOOP_ISA
