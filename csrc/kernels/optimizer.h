// SPDX-License-Identifier: Apache-2.0
// The update rules of the optimisers for one vector of parameters. The scalars of a step are prepared in
// double and rounded once; torch's formulas are rearranged only to save divisions and roundings.
#pragma once

#include <math.h>

#include "kernels/vec.h"

namespace hotloop::HOTLOOP_ISA {

// What optimizer_begin writes: the order of `scalars` in args.h.
enum StepScalar : int {
  kSkip,
  kLr,
  kWeightDecay,
  kGradScale,
  kBiasCorrection1,
  kSqrtBiasCorrection2,
  kStep,
  kGradNorm,
  kNumStepScalars
};

template <class real>
HOTLOOP_INLINE Vec<real> splat(double x) {
  return Vec<real>(static_cast<real>(x));
}

// g = scale * grad + l2 * param;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2
// param = decay * param - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)
// Adam puts the weight decay into l2, AdamW into decay = 1 - lr * weight_decay.
template <class real>
struct AdamRule {
  using V = Vec<real>;
  V scale, l2, decay, lerp1, beta2, weight2, step_size, inv_sqrt_c2, eps;

  HOTLOOP_HD AdamRule(const double* s, bool decoupled, double beta1, double b2, double epsilon)
      : scale(splat<real>(s[kGradScale])),
        l2(splat<real>(decoupled ? 0.0 : s[kWeightDecay])),
        decay(splat<real>(decoupled ? 1.0 - s[kLr] * s[kWeightDecay] : 1.0)),
        lerp1(splat<real>(1.0 - beta1)),
        beta2(splat<real>(b2)),
        weight2(splat<real>(1.0 - b2)),
        step_size(splat<real>(s[kLr] / s[kBiasCorrection1])),
        inv_sqrt_c2(splat<real>(1.0 / s[kSqrtBiasCorrection2])),
        eps(splat<real>(epsilon)) {}

  HOTLOOP_INLINE void apply(V& param, V& m, V& v, V grad) const {
    const V g = fma(l2, param, scale * grad);
    m = fma(lerp1, g - m, m);
    v = fma(beta2, v, weight2 * g * g);
    const V update = step_size * m / fma(sqrt(v), inv_sqrt_c2, eps);
    param = fma(decay, param, -update);
  }
};

// g = scale * grad + weight_decay * param;  b = momentum * b + g
// param -= lr * (b, or g + momentum * b if nesterov, or g without momentum)
template <class real>
struct SgdRule {
  using V = Vec<real>;
  V scale, l2, lr, momentum;

  HOTLOOP_HD SgdRule(const double* s, double momentum_)
      : scale(splat<real>(s[kGradScale])),
        l2(splat<real>(s[kWeightDecay])),
        lr(splat<real>(s[kLr])),
        momentum(splat<real>(momentum_)) {}

  HOTLOOP_INLINE V gradient(V param, V grad) const { return fma(l2, param, scale * grad); }
  HOTLOOP_INLINE void apply(V& param, V grad) const { param = fnma(lr, gradient(param, grad), param); }
  HOTLOOP_INLINE void apply(V& param, V& buffer, V grad, bool nesterov) const {
    const V g = gradient(param, grad);
    buffer = fma(momentum, buffer, g);
    param = fnma(lr, nesterov ? fma(momentum, buffer, g) : buffer, param);
  }
};

// g = scale * grad + weight_decay * param;  s = alpha s + (1 - alpha) g^2;  u = g / (sqrt(s) + eps)
// param -= lr * (u, or b = momentum * b + u)
template <class real>
struct RmspropRule {
  using V = Vec<real>;
  V scale, l2, lr, alpha, weight, eps, momentum;

  HOTLOOP_HD RmspropRule(const double* s, double alpha_, double epsilon, double momentum_)
      : scale(splat<real>(s[kGradScale])),
        l2(splat<real>(s[kWeightDecay])),
        lr(splat<real>(s[kLr])),
        alpha(splat<real>(alpha_)),
        weight(splat<real>(1.0 - alpha_)),
        eps(splat<real>(epsilon)),
        momentum(splat<real>(momentum_)) {}

  HOTLOOP_INLINE V direction(V param, V& square_avg, V grad) const {
    const V g = fma(l2, param, scale * grad);
    square_avg = fma(alpha, square_avg, weight * g * g);
    return g / (sqrt(square_avg) + eps);
  }
  HOTLOOP_INLINE void apply(V& param, V& square_avg, V grad) const {
    param = fnma(lr, direction(param, square_avg, grad), param);
  }
  HOTLOOP_INLINE void apply(V& param, V& square_avg, V& buffer, V grad) const {
    buffer = fma(momentum, buffer, direction(param, square_avg, grad));
    param = fnma(lr, buffer, param);
  }
};

}  // namespace hotloop::HOTLOOP_ISA
