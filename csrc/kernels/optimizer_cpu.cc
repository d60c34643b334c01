// SPDX-License-Identifier: Apache-2.0
// The optimisers over the flat parameter buffer, and what precedes them: the gradient's norm and the
// scalars that one step's parameters share. One pass reads each element once and writes it once.
#include <math.h>

#include "kernels/optimizer.h"
#include "kernels/write_lanes.h"

namespace hotloop::HOTLOOP_ISA {

// partial_j = sum of x^2 over run j of x (n)

template <class real>
int64 square_sum_chunks(const SquareSumArgs<real>& a) {
  return ceil_div(a.n, kElementwiseChunk);
}

// Squared in double: a gradient of 1e20 has a norm. 16 accumulators hide the latency of the additions.
template <class real>
double square_sum_of(const real* x, int64 n) {
  constexpr int64 kLanes = 16;
  double sums[kLanes] = {};
  int64 i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64 j = 0; j < kLanes; ++j) {
      const double value = static_cast<double>(x[i + j]);
      sums[j] += value * value;
    }
  }
  for (int64 j = 0; i + j < n; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (int64 half = kLanes / 2; half > 0; half /= 2) {
    for (int64 j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

template <class real>
void square_sum_run(const SquareSumArgs<real>& a, const StepContext&, int64 chunk) {
  const Range range = chunk_range(chunk, kElementwiseChunk, a.n);
  for (int64 begin = range.begin; begin < range.end; begin += kSquareSumRun) {
    const int64 n = range.end - begin < kSquareSumRun ? range.end - begin : kSquareSumRun;
    a.partial[begin / kSquareSumRun] = square_sum_of(a.x + begin, n);
  }
}

// scalars of the step: see args.h

template <class real>
int64 optimizer_begin_chunks(const OptimizerBeginArgs<real>&) {
  return 1;
}

template <class real>
void optimizer_begin_run(const OptimizerBeginArgs<real>& a, const StepContext& ctx, int64) {
  double square = 0.0;
  for (int64 i = 0; i < a.n_partial && a.partial != nullptr; ++i) square += a.partial[i];
  const double norm = ::sqrt(square);
  const double ratio = a.clip_norm / (norm + 1e-6);          // torch's guard against a zero norm
  const bool clips = a.clip_norm != 0.0 && !(ratio >= 1.0);  // a NaN norm spoils the step, as in torch
  const bool skip = a.total != nullptr && *a.total == 0.0;
  for (int64 i = 0; i < a.n_counter && !skip; ++i) a.counter[i] += 1;
  const double t = static_cast<double>(a.counter[0]);  // all are equal
  a.scalars[kSkip] = skip ? 1.0 : 0.0;
  a.scalars[kLr] = ctx.groups[2 * a.group];
  a.scalars[kWeightDecay] = ctx.groups[2 * a.group + 1];
  a.scalars[kGradScale] = clips ? ratio : 1.0;
  a.scalars[kBiasCorrection1] = 1.0 - ::pow(a.beta1, t);
  a.scalars[kSqrtBiasCorrection2] = ::sqrt(1.0 - ::pow(a.beta2, t));
  a.scalars[kStep] = t;
  a.scalars[kGradNorm] = norm;
}

namespace {

// step(values[K], grad) on n elements of kVectors vectors each from element i on. All loads stand before the
// stores: tensors of like size often lie a multiple of 4 KB apart, where a load waits for a store that only
// seems to overlap it.
template <int kVectors, class real, int K, class Step>
HOTLOOP_INLINE void update_vectors(real* const (&state)[K], const real* grad, int64 i, int64 n, Step&& step) {
  constexpr int64 width = Vec<real>::width;
  Vec<real> values[kVectors][K];
#pragma GCC unroll 4
  for (int u = 0; u < kVectors; ++u) {
    for (int k = 0; k < K; ++k) values[u][k] = load(state[k] + i + u * width, n);
    step(values[u], load(grad + i + u * width, n));
  }
#pragma GCC unroll 4
  for (int u = 0; u < kVectors; ++u) {
    for (int k = 0; k < K; ++k) store(values[u][k], state[k] + i + u * width, n);
  }
}

// The same over a range. Four vectors: their roots and divisions, all a processor has one unit for, queue up.
// A long range begins at a boundary of vectors, where arrays from malloc do not: lines that are split between
// two vectors cost AdamW of 16 M elements 6 %.
template <class real, int K, class Step>
HOTLOOP_INLINE void update(Range range, real* const (&state)[K], const real* grad, Step&& step) {
  constexpr int64 width = Vec<real>::width;
  constexpr int64 kLong = 4096;
  int64 i = range.begin;
  const int64 head = range.end - i < kLong ? 0 : to_boundary(state[0] + i);
  if (head > 0) update_vectors<1>(state, grad, i, head, step);
  i += head;
  for (; i + 4 * width <= range.end; i += 4 * width) update_vectors<4>(state, grad, i, width, step);
  for (; i + width <= range.end; i += width) update_vectors<1>(state, grad, i, width, step);
  if (i < range.end) update_vectors<1>(state, grad, i, range.end - i, step);
}

}  // namespace

// adam and adamw: param, exp_avg, exp_avg_sq, grad (n)

template <class real>
int64 adam_chunks(const AdamArgs<real>& a) {
  return ceil_div(a.n, even_chunk(a.n));
}

template <class real>
void adam_run(const AdamArgs<real>& a, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  if (a.scalars[kSkip] != 0.0) return;
  const AdamRule<real> rule(a.scalars, a.decoupled != 0, a.beta1, a.beta2, a.eps);
  update<real>(chunk_range(chunk, even_chunk(a.n), a.n), {a.param, a.exp_avg, a.exp_avg_sq}, a.grad,
               [&](V(&x)[3], V grad) HOTLOOP_BODY { rule.apply(x[0], x[1], x[2], grad); });
}

// sgd: param, momentum_buffer, grad (n)

template <class real>
int64 sgd_chunks(const SgdArgs<real>& a) {
  return ceil_div(a.n, even_chunk(a.n));
}

template <class real>
void sgd_run(const SgdArgs<real>& a, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  if (a.scalars[kSkip] != 0.0) return;
  const SgdRule<real> rule(a.scalars, a.momentum);
  const Range range = chunk_range(chunk, even_chunk(a.n), a.n);
  if (a.momentum_buffer == nullptr) {
    update<real>(range, {a.param}, a.grad, [&](V(&x)[1], V grad) HOTLOOP_BODY { rule.apply(x[0], grad); });
    return;
  }
  const bool nesterov = a.nesterov != 0;
  update<real>(range, {a.param, a.momentum_buffer}, a.grad,
               [&](V(&x)[2], V grad) HOTLOOP_BODY { rule.apply(x[0], x[1], grad, nesterov); });
}

// rmsprop: param, square_avg, momentum_buffer, grad (n)

template <class real>
int64 rmsprop_chunks(const RmspropArgs<real>& a) {
  return ceil_div(a.n, even_chunk(a.n));
}

template <class real>
void rmsprop_run(const RmspropArgs<real>& a, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  if (a.scalars[kSkip] != 0.0) return;
  const RmspropRule<real> rule(a.scalars, a.alpha, a.eps, a.momentum);
  const Range range = chunk_range(chunk, even_chunk(a.n), a.n);
  if (a.momentum_buffer == nullptr) {
    update<real>(range, {a.param, a.square_avg}, a.grad,
                 [&](V(&x)[2], V grad) HOTLOOP_BODY { rule.apply(x[0], x[1], grad); });
  } else {
    update<real>(range, {a.param, a.square_avg, a.momentum_buffer}, a.grad,
                 [&](V(&x)[3], V grad) HOTLOOP_BODY { rule.apply(x[0], x[1], x[2], grad); });
  }
}

HOTLOOP_INSTANTIATE(square_sum, SquareSumArgs)
HOTLOOP_INSTANTIATE(optimizer_begin, OptimizerBeginArgs)
HOTLOOP_INSTANTIATE(adam, AdamArgs)
HOTLOOP_INSTANTIATE(sgd, SgdArgs)
HOTLOOP_INSTANTIATE(rmsprop, RmspropArgs)

}  // namespace hotloop::HOTLOOP_ISA
