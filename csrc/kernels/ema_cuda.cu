// SPDX-License-Identifier: Apache-2.0
// The exponential moving average of the parameters: 12 bytes a parameter, at the memory bound.
#include <math.h>

#include "cuda/flat.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {
namespace {

HL_KERNEL begin_ema(double* scalars, int64* counter, const double* total, double decay) {
  const bool skip = total != nullptr && *total == 0.0;
  const int64 count = *counter + (skip ? 0 : 1);
  *counter = count;
  scalars[0] = skip ? 0.0 : count == 1 ? 1.0 : 1.0 - decay;
}

// average (n) += weight * (param - average)
HL_KERNEL ema(float* average, const float* param, const double* scalars, int64 n, int64 n4) {
  const double given = scalars[0];
  if (given == 0.0) return;
  const float weight = static_cast<float>(given);
  const bool copies = given == 1.0;  // average + (param - average) would round
  const auto f = [=](float a, float p) { return copies ? p : ::fmaf(weight, p - a, a); };
  for_quads(
      n, n4,
      [&](int64 i) {
        const Float4 a = load4(average + i), p = load4(param + i);
        store4(average + i, Float4{f(a.x, p.x), f(a.y, p.y), f(a.z, p.z), f(a.w, p.w)});
      },
      [&](int64 i) { average[i] = f(average[i], param[i]); });
}

}  // namespace

void ema_begin_launch(const EmaBeginArgs<float>& a, const Launch& l) {
  launch(stream_of(l), begin_ema, 1, 1, 0, a.scalars, a.counter, a.total, a.decay);
}

void ema_launch(const EmaArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), ema, grid_for(ceil_div(a.n, 4), l), kThreads, 0, a.average, a.param, a.scalars, a.n,
         quads(a.n, a.average, a.param));
}

}  // namespace hotloop::cuda
