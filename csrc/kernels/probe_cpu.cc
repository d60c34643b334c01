// SPDX-License-Identifier: Apache-2.0
// The rate of fused multiply-adds of one core when nothing but registers is touched: the ceiling that
// every product of matrices is measured against, in the same run.
#include "kernels/probe.h"

#include <time.h>

#include "kernels/vec.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Independent chains: more than the 8 to 10 that two units of 4 to 5 cycles' latency need, or the 16 of four
// NEON units, and as many as fit beside the factors in 16 registers, or in the 32 of AVX-512 and NEON.
constexpr int kChains = Vec<float>::width == 16 || Vec<float>::width == 4 ? 24 : 12;
constexpr int kInner = 4096;

}  // namespace

double fma_peak(double seconds) {
  using V = Vec<float>;
  V acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = V(static_cast<float>(i));
  const V a(0.999f), b(1e-3f);
  double best = 0.0;
  const double end = now() + seconds;
  while (now() < end) {
    const double t0 = now();
    for (int k = 0; k < kInner; ++k) {
#pragma GCC unroll 24
      for (int i = 0; i < kChains; ++i) {
        // As in the tile, the sum is the operand that NEON's instruction overwrites. One lane: a product that
        // no processor can make beforehand.
        acc[i] = V::width > 1 ? fma(a, b, acc[i]) : fma(acc[i], a, b);
      }
    }
    const double rate = 2.0 * kInner * kChains * static_cast<double>(V::width) / (now() - t0);
    if (rate > best) best = rate;
  }
  V total = acc[0];
  for (int i = 1; i < kChains; ++i) total = total + acc[i];
  volatile float sink = sum(total);  // keeps the chains alive
  (void)sink;
  return best;
}

}  // namespace hotloop::HOTLOOP_ISA
