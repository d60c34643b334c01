// SPDX-License-Identifier: Apache-2.0
// Gradients of several batches joined to one: 12 bytes a parameter after each batch, 8 after the first, at
// the memory bound. Which batch it is stands in DeviceStep, because the same graph is launched for all.
#include <math.h>

#include "cuda/flat.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {
namespace {

HL_KERNEL begin_accumulation(double* scalars, double* tally, const double* total_at, const DeviceStep* step) {
  const double before = step->first != 0 ? 0.0 : tally[0], total = *total_at;
  const double unit = before == 0.0 ? total : tally[1];
  const double sum = before + total;
  tally[0] = sum;
  tally[1] = unit;
  scalars[0] = before == 0.0 ? 0.0 : 1.0;
  scalars[1] = unit == 0.0 ? 0.0 : total / unit;
  scalars[2] = step->last != 0 ? 1.0 : 0.0;
  scalars[3] = sum == 0.0 ? 0.0 : unit / sum;
}

// s = weight * grad + (sum if keep);  sum (n) = s, but in the last batch grad (n) = scale * s
HL_KERNEL accumulate(float* sum, float* grad, const double* scalars, int64 n, int64 n4) {
  const bool keep = scalars[0] != 0.0, last = scalars[2] != 0.0;
  if (last && !keep) return;  // the mean of one gradient is that gradient
  const float weight = static_cast<float>(scalars[1]);
  const float scale = last ? static_cast<float>(scalars[3]) : 1.0f;
  float* const out = last ? grad : sum;
  const auto f = [=](float g, float s) { return scale * (keep ? ::fmaf(weight, g, s) : weight * g); };
  for_quads(
      n, n4,
      [&](int64 i) {
        const Float4 g = load4(grad + i), s = keep ? load4(sum + i) : Float4{0.0f, 0.0f, 0.0f, 0.0f};
        store4(out + i, Float4{f(g.x, s.x), f(g.y, s.y), f(g.z, s.z), f(g.w, s.w)});
      },
      [&](int64 i) { out[i] = f(grad[i], keep ? sum[i] : 0.0f); });
}

}  // namespace

void accumulate_begin_launch(const AccumulateBeginArgs<float>& a, const Launch& l) {
  launch(stream_of(l), begin_accumulation, 1, 1, 0, a.scalars, a.tally, a.total, l.step);
}

void accumulate_launch(const AccumulateArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), accumulate, grid_for(ceil_div(a.n, 4), l), kThreads, 0, a.sum, a.grad, a.scalars, a.n,
         quads(a.n, a.sum, a.grad));
}

}  // namespace hotloop::cuda
