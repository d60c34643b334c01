// SPDX-License-Identifier: Apache-2.0
// What follows a matrix product: activation, dropout, an activation's gradient, a residual. It is applied to
// finished blocks while they are in cache, in long spans; the loops are those of the kernels it stands for,
// so fusion changes no bit.
#pragma once

#include "kernels/dropout.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/matmul_operands.h"

namespace hotloop::HOTLOOP_ISA {

struct Identity {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x;
  }
};

// `count` finished outputs in a row, the first at out[at]; its number is `element` of i*n + j.
struct Span {
  int64 at, element, count;
};

// out = f(out), in place; saved is what the gradient of f reads: out before (Input) or after.
enum Reads { Input, Output, Sign };
template <class F, Reads reads, class real>
void activate(const MatmulArgs<real>& args, const Span& span) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  for_lanes<real>(span.at, span.at + span.count, [&](int64 i, int64 n) HOTLOOP_BODY {
    const V z = load(args.out + i, n);
    const V y = F::value(z, p0, p1);
    if (args.saved != nullptr) store(reads == Input ? z : y, args.saved + i, n);
    store(y, args.out + i, n);
  });
}

// out *= f'(gate), in place.
template <class F, class real>
void apply_gate(const MatmulArgs<real>& args, const Span& span) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  for_lanes<real>(span.at, span.at + span.count, [&](int64 i, int64 n) HOTLOOP_BODY {
    store(F::grad(load(args.gate + i, n), load(args.out + i, n), p0, p1), args.out + i, n);
  });
}

// The activation, or with a gate its gradient.
template <class real>
void apply_function(const MatmulArgs<real>& args, const Span& span) {
  enum Activation : int64 {
#define HOTLOOP_UNARY(name, Functor, reads) k_##name,
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
  };
  switch (args.activation) {
#define HOTLOOP_UNARY(name, Functor, reads) \
  case k_##name:                            \
    return args.gate != nullptr ? apply_gate<Functor>(args, span) : activate<Functor, reads>(args, span);
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
    default:
      if (args.saved != nullptr) activate<Identity, Input>(args, span);
  }
}

template <class real>
void drop(const MatmulArgs<real>& args, const DropoutMask<real>& mask, const Span& span) {
  real* out = args.out + span.at;
  for_kept_runs(mask, span.element, span.count, 0, [&](int64 at, int64 count, const auto& kept) {
    for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
      store(kept.drop(load(out + at + i, n), i), out + at + i, n);
    });
  });
}

template <class real>
void add_residual(const MatmulArgs<real>& args, const Span& span) {
  for_lanes<real>(span.at, span.at + span.count, [&](int64 i, int64 n) HOTLOOP_BODY {
    store(load(args.out + i, n) + load(args.residual + i, n), args.out + i, n);
  });
}

// What follows the product, on a finished block while it is in cache. A block as wide as the matrix is taken
// several rows at a time: loops over a row of 10 outputs, or masks of 64 elements for them, would cost more
// than the work. The four passes over a span stay in L1.
template <class real>
void finish_block(const MatmulArgs<real>& args, const StepContext& ctx, const Block& block) {
  if (args.activation < 0 && args.dropout < 0 && args.saved == nullptr && args.residual == nullptr) return;
  constexpr int64 most = 2048;
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  const int64 step = block.n == args.out_stride ? larger(1, most / larger(1, block.n)) : 1;
  for (int64 i = 0; i < block.rows; i += step) {
    const int64 row = block.row + i;
    const Span span{row * args.out_stride + block.column, row * args.n + block.column,
                    smaller(step, block.rows - i) * block.n};
    if (args.gate == nullptr) apply_function(args, span);
    if (!mask.identity()) drop(args, mask, span);
    if (args.gate != nullptr) apply_function(args, span);
    if (args.residual != nullptr) add_residual(args, span);
  }
}

}  // namespace hotloop::HOTLOOP_ISA
