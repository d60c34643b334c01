// SPDX-License-Identifier: Apache-2.0
// The optimisers as the device's kernels know them: the numbers of each, the rule of optimizer.h that these
// and a step's scalars make, and one step of four elements or of one. Who walks over which elements is the
// kernels' (optimizer_cuda.cu, optimizer_list_cuda.cu).
#pragma once

#include "cuda/flat.h"
#include "kernels/kernel_cuda.h"
#include "kernels/optimizer.h"

namespace hotloop::cuda {

using V = Vec<float>;

// What a step changes: the parameter first.
template <int K>
struct State {
  float* tensor[K];
};

template <int K>
HOTLOOP_HD bool aligned_state(const State<K>& state, const float* grad) {
  std::uintptr_t all = reinterpret_cast<std::uintptr_t>(grad);
  for (const float* p : state.tensor) all |= reinterpret_cast<std::uintptr_t>(p);
  return all % 16 == 0;
}

// An optimiser: its numbers, the rule that they and the step's scalars make, and how the rule is applied.
struct Adam {
  using Rule = AdamRule<float>;
  double beta1, beta2, eps;
  bool decoupled;
  HOTLOOP_HD Rule rule(const double* s) const { return Rule(s, decoupled, beta1, beta2, eps); }
  HL_DEVICE void apply(const Rule& rule, V (&x)[3], V grad) const { rule.apply(x[0], x[1], x[2], grad); }
};

struct Sgd {
  using Rule = SgdRule<float>;
  double momentum;
  bool nesterov;
  HOTLOOP_HD Rule rule(const double* s) const { return Rule(s, momentum); }
  HL_DEVICE void apply(const Rule& rule, V (&x)[1], V grad) const { rule.apply(x[0], grad); }
  HL_DEVICE void apply(const Rule& rule, V (&x)[2], V grad) const { rule.apply(x[0], x[1], grad, nesterov); }
};

struct Rmsprop {
  using Rule = RmspropRule<float>;
  double alpha, eps, momentum;
  HOTLOOP_HD Rule rule(const double* s) const { return Rule(s, alpha, eps, momentum); }
  HL_DEVICE void apply(const Rule& rule, V (&x)[2], V grad) const { rule.apply(x[0], x[1], grad); }
  HL_DEVICE void apply(const Rule& rule, V (&x)[3], V grad) const { rule.apply(x[0], x[1], x[2], grad); }
};

// f(state, optimizer) of the tensors and numbers of an optimiser's arguments; host side.
template <class F>
void with_state(const AdamArgs<float>& a, F f) {
  f(State<3>{{a.param, a.exp_avg, a.exp_avg_sq}}, Adam{a.beta1, a.beta2, a.eps, a.decoupled != 0});
}
template <class F>
void with_state(const SgdArgs<float>& a, F f) {
  const Sgd sgd{a.momentum, a.nesterov != 0};
  if (a.momentum_buffer == nullptr)
    f(State<1>{{a.param}}, sgd);
  else
    f(State<2>{{a.param, a.momentum_buffer}}, sgd);
}
template <class F>
void with_state(const RmspropArgs<float>& a, F f) {
  const Rmsprop rmsprop{a.alpha, a.eps, a.momentum};
  if (a.momentum_buffer == nullptr)
    f(State<2>{{a.param, a.square_avg}}, rmsprop);
  else
    f(State<3>{{a.param, a.square_avg, a.momentum_buffer}}, rmsprop);
}

// One step of elements of one tensor and its gradient.
template <class Optimizer, int K>
struct Update {
  const Optimizer& optimizer;
  const typename Optimizer::Rule& rule;
  const State<K>& state;
  const float* grad;

  HL_DEVICE void four(int64 i) const {
    const Float4 g = load4(grad + i);
    Float4 x[K];
    HL_UNROLL
    for (int k = 0; k < K; ++k) x[k] = load4(state.tensor[k] + i);
    V lane0[K], lane1[K], lane2[K], lane3[K];
    HL_UNROLL
    for (int k = 0; k < K; ++k) {
      lane0[k] = V(x[k].x), lane1[k] = V(x[k].y), lane2[k] = V(x[k].z), lane3[k] = V(x[k].w);
    }
    optimizer.apply(rule, lane0, V(g.x));
    optimizer.apply(rule, lane1, V(g.y));
    optimizer.apply(rule, lane2, V(g.z));
    optimizer.apply(rule, lane3, V(g.w));
    HL_UNROLL
    for (int k = 0; k < K; ++k)
      store4(state.tensor[k] + i, Float4{lane0[k].v, lane1[k].v, lane2[k].v, lane3[k].v});
  }

  HL_DEVICE void one(int64 i) const {
    V x[K];
    HL_UNROLL
    for (int k = 0; k < K; ++k) x[k] = V(state.tensor[k][i]);
    optimizer.apply(rule, x, V(grad[i]));
    HL_UNROLL
    for (int k = 0; k < K; ++k) state.tensor[k][i] = x[k].v;
  }
};

}  // namespace hotloop::cuda
