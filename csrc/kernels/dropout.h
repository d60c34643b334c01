// SPDX-License-Identifier: Apache-2.0
// Dropout of a run of elements, shared by the dropout kernel, the matmul epilogue and the gradients of
// activations. The mask is a function of (seed, run, layer, step, element): made again, never stored.
#pragma once

#include "cpu/philox_vec.h"
#include "kernels/kernel.h"
#include "kernels/vec.h"

namespace hotloop::HOTLOOP_ISA {

template <class real>
struct DropoutMask {
  PhiloxKey key{};
  std::uint64_t step = 0;
  int64 first = 0;    // element of the batch that this call's element 0 is
  int threshold = 0;  // of 65536; 0: the identity
  real scale = 1;     // 1 / keep rate

  // row: elements of a row of the batch
  DropoutMask(const StepContext& ctx, int64 layer, int64 row) {
    if (layer < 0) return;
    threshold = static_cast<int>(ctx.dropout[layer] * 65536.0 + 0.5);
    if (threshold == 0) return;
    key = stream_key(ctx.seed, ctx.run, static_cast<std::uint32_t>(layer), Stream::kDropout);
    step = ctx.step;
    first = ctx.first_row * row;
    if (threshold < 65536) scale = static_cast<real>(65536.0 / (65536.0 - threshold));
  }

  bool identity() const { return threshold == 0; }

  // 64 elements from element 8 * first_block: 0 where dropped, else the scale.
  void factors(int64 first_block, real (&out)[kPhiloxHalves]) const {
    std::uint16_t halves[kPhiloxHalves];
    philox_halves(static_cast<std::uint64_t>(first_block), step, key, halves);
    for (int e = 0; e < kPhiloxHalves; ++e) out[e] = halves[e] < threshold ? real(0) : scale;
  }
};

// Elements [begin, begin + n) of a call: calls body(i, count, drop) for i = 0, ... < n with count <= W
// elements each (fewer before a border of 64 elements and at the end); drop(v) scales v, and makes the
// dropped lanes 0 even where v is inf or NaN.
template <class real, class Body>
HOTLOOP_INLINE void for_each_dropped(const DropoutMask<real>& mask, int64 begin, int64 n, Body body) {
  using V = Vec<real>;
  real factors[kPhiloxHalves];
  const int64 first = mask.first + begin;
  int64 e = first % 8;
  for (int64 i = 0, block = first / 8; i < n; block += kPhiloxBlocks, e = 0) {
    mask.factors(block, factors);
    while (e < kPhiloxHalves && i < n) {
      const int64 left = n - i < kPhiloxHalves - e ? n - i : kPhiloxHalves - e;
      const int64 count = left < V::width ? left : V::width;
      const V factor = V::load_n(factors + e, count);
      body(i, count, [factor](V v) { return select(factor == V::zero(), V::zero(), v * factor); });
      i += count;
      e += count;
    }
  }
}

}  // namespace hotloop::HOTLOOP_ISA
