// SPDX-License-Identifier: Apache-2.0
// The optimisers over the flat parameter buffer, and what precedes them: the gradient's norm and the scalars
// that one step's parameters share. One launch for all parameters, each
// number moved once by 16-byte accesses: 28 bytes a parameter for Adam, 12 for SGD, 20 with a buffer. Eight
// blocks of 256 threads keep 100 KB and more on their way for each multiprocessor, several times what the
// latency of memory asks for, so that no loop is unrolled.
#include "cuda/flat.h"
#include "cuda/reduce.h"
#include "kernels/optimizer_cuda.h"

namespace hotloop::cuda {
namespace {

// partial_j = sum of x^2 over run j of x (n): a block each. Squared in double: a gradient of 1e20 has a norm.
HL_KERNEL HL_BOUNDS(kThreads, 4) square_sum(double* partial, const float* x, int64 n, int64 n4) {
  HL_SHARED(double, scratch, [kWarp]);
  const auto square = [](float v) { return static_cast<double>(v) * static_cast<double>(v); };
  const int64 begin = int64{blockIdx.x} * kSquareSumRun;
  const int64 end = begin + kSquareSumRun < n ? begin + kSquareSumRun : n;
  double sum = 0.0;
  int64 i = begin + 4 * threadIdx.x;
  for (; i < end && i + 4 <= 4 * n4; i += 4 * kThreads) {
    const Float4 v = load4(x + i);
    sum += (square(v.x) + square(v.y)) + (square(v.z) + square(v.w));
  }
  for (; i < end; i += 4 * kThreads) {
    for (int64 j = i; j < i + 4 && j < end; ++j) sum += square(x[j]);
  }
  sum = block_reduce(sum, Sum{}, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

HL_KERNEL begin_step(OptimizerBeginArgs<float> a, const DeviceStep* step) {
  HL_SHARED(double, scratch, [kWarp]);
  const int64 t = threadIdx.x;
  double square = 0.0;
  for (int64 i = t; a.partial != nullptr && i < a.n_partial; i += kThreads) square += a.partial[i];
  square = block_reduce(square, Sum{}, scratch);
  const bool skip = a.total != nullptr && *a.total == 0.0;
  const int64 count = a.counter[0] + (skip ? 0 : 1);
  sync();  // all have read it
  for (int64 i = t; i < a.n_counter && !skip; i += kThreads) a.counter[i] = count;
  if (t != 0) return;
  const double norm = ::sqrt(square);
  const double ratio = a.clip_norm / (norm + 1e-6);          // torch's guard against a zero norm
  const bool clips = a.clip_norm != 0.0 && !(ratio >= 1.0);  // a NaN norm spoils the step, as in torch
  const double steps = static_cast<double>(count);
  a.scalars[kSkip] = skip ? 1.0 : 0.0;
  a.scalars[kLr] = step->groups[2 * a.group];
  a.scalars[kWeightDecay] = step->groups[2 * a.group + 1];
  a.scalars[kGradScale] = clips ? ratio : 1.0;
  a.scalars[kBiasCorrection1] = 1.0 - ::pow(a.beta1, steps);
  a.scalars[kSqrtBiasCorrection2] = ::sqrt(1.0 - ::pow(a.beta2, steps));
  a.scalars[kStep] = steps;
  a.scalars[kGradNorm] = norm;
}

// One thread of a block makes the rule, because that takes divisions in double.
template <class Optimizer, int K>
HL_KERNEL HL_BOUNDS(kThreads, 4)
    update(State<K> state, const float* grad, const double* scalars, Optimizer optimizer, int64 n, int64 n4) {
  using Rule = typename Optimizer::Rule;
  HL_SHARED(float, made, [sizeof(Rule) / sizeof(float)]);
  if (scalars[kSkip] != 0.0) return;
  if (threadIdx.x == 0) *reinterpret_cast<Rule*>(&made[0]) = optimizer.rule(scalars);
  sync();
  const Rule rule = *reinterpret_cast<const Rule*>(&made[0]);
  const Update<Optimizer, K> one_step{optimizer, rule, state, grad};
  for_quads(n, n4, [&](int64 i) { one_step.four(i); }, [&](int64 i) { one_step.one(i); });
}

template <class Args>
void launch_update(const Args& a, const Launch& l) {
  if (a.n == 0) return;
  with_state(a, [&]<int K, class Optimizer>(const State<K>& state, const Optimizer& optimizer) {
    launch(stream_of(l), update<Optimizer, K>, grid_for(ceil_div(a.n, 4), l), kThreads, 0, state, a.grad,
           a.scalars, optimizer, a.n, aligned_state(state, a.grad) ? a.n / 4 : 0);
  });
}

}  // namespace

void square_sum_launch(const SquareSumArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), square_sum, static_cast<unsigned>(ceil_div(a.n, kSquareSumRun)), kThreads, 0,
         a.partial, a.x, a.n, quads(a.n, a.x));
}

void optimizer_begin_launch(const OptimizerBeginArgs<float>& a, const Launch& l) {
  launch(stream_of(l), begin_step, 1, kThreads, 0, a, l.step);
}

void adam_launch(const AdamArgs<float>& a, const Launch& l) { launch_update(a, l); }
void sgd_launch(const SgdArgs<float>& a, const Launch& l) { launch_update(a, l); }
void rmsprop_launch(const RmspropArgs<float>& a, const Launch& l) { launch_update(a, l); }

}  // namespace hotloop::cuda
