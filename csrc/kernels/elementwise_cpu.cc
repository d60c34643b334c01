// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of dense tensors: every function of unary.def with its gradient, dropout, fill and
// clamp. Chunks are runs of kElementwiseChunk elements; the functions themselves are in math.h.
#include "kernels/dropout.h"
#include "kernels/lanes.h"
#include "kernels/math.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

constexpr Range elements(int64 chunk, int64 n) { return chunk_range(chunk, kElementwiseChunk, n); }

template <class F, class real>
void unary_fwd(const UnaryFwdArgs<real>& args, int64 chunk) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  const Range range = elements(chunk, args.n);
  for_lanes<real>(range.begin, range.end, [&](int64 i, int64 n) HOTLOOP_BODY {
    store(F::value(load(args.x + i, n), p0, p1), args.y + i, n);
  });
}

// dx = dropout(dy) * f'(saved)
template <class F, class real>
void unary_bwd(const UnaryBwdArgs<real>& args, const StepContext& ctx, int64 chunk) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  const Range range = elements(chunk, args.n);
  const auto step = [&](int64 i, int64 n, auto&& dropped) HOTLOOP_BODY {
    const V dy = dropped(load(args.dy + i, n));
    store(F::grad(load(args.saved + i, n), dy, p0, p1), args.dx + i, n);
  };
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  if (mask.identity()) {
    for_lanes<real>(range.begin, range.end,
                    [&](int64 i, int64 n) HOTLOOP_BODY { step(i, n, [](V v) { return v; }); });
  } else {
    for_each_dropped(mask, range.begin, range.end - range.begin,
                     [&](int64 i, int64 n, auto&& dropped)
                         HOTLOOP_BODY { step(range.begin + i, n, dropped); });
  }
}

}  // namespace

#define HOTLOOP_UNARY(name, Functor, reads)                                                  \
  template <class real>                                                                      \
  int64 name##_fwd_chunks(const UnaryFwdArgs<real>& args) {                                  \
    return ceil_div(args.n, kElementwiseChunk);                                              \
  }                                                                                          \
  template <class real>                                                                      \
  void name##_fwd_run(const UnaryFwdArgs<real>& args, const StepContext&, int64 chunk) {     \
    unary_fwd<Functor>(args, chunk);                                                         \
  }                                                                                          \
  template <class real>                                                                      \
  int64 name##_bwd_chunks(const UnaryBwdArgs<real>& args) {                                  \
    return ceil_div(args.n, kElementwiseChunk);                                              \
  }                                                                                          \
  template <class real>                                                                      \
  void name##_bwd_run(const UnaryBwdArgs<real>& args, const StepContext& ctx, int64 chunk) { \
    unary_bwd<Functor>(args, ctx, chunk);                                                    \
  }                                                                                          \
  HOTLOOP_INSTANTIATE(name##_fwd, UnaryFwdArgs)                                              \
  HOTLOOP_INSTANTIATE(name##_bwd, UnaryBwdArgs)
#include "kernels/unary.def"
#undef HOTLOOP_UNARY

template <class real>
int64 dropout_chunks(const DropoutArgs<real>& args) {
  return ceil_div(args.n, kElementwiseChunk);
}

template <class real>
void dropout_run(const DropoutArgs<real>& args, const StepContext& ctx, int64 chunk) {
  const Range range = elements(chunk, args.n);
  const real* x = args.x + range.begin;
  real* y = args.y + range.begin;
  const int64 count = range.end - range.begin;
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  if (mask.identity()) {
    for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY { store(load(x + i, n), y + i, n); });
  } else {
    for_each_dropped(mask, range.begin, count, [&](int64 i, int64 n, auto&& dropped) HOTLOOP_BODY {
      store(dropped(load(x + i, n)), y + i, n);
    });
  }
}

template <class real>
int64 fill_chunks(const FillArgs<real>& args) {
  return ceil_div(args.n, kElementwiseChunk);
}

template <class real>
void fill_run(const FillArgs<real>& args, const StepContext&, int64 chunk) {
  const Vec<real> value(static_cast<real>(args.value));
  const Range range = elements(chunk, args.n);
  for_lanes<real>(range.begin, range.end,
                  [&](int64 i, int64 n) HOTLOOP_BODY { store(value, args.out + i, n); });
}

template <class real>
int64 clamp_chunks(const ClampArgs<real>& args) {
  return ceil_div(args.n, kElementwiseChunk);
}

template <class real>
void clamp_run(const ClampArgs<real>& args, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  const V lo(static_cast<real>(args.lo));
  const V hi(static_cast<real>(args.hi));
  const Range range = elements(chunk, args.n);
  for_lanes<real>(range.begin, range.end, [&](int64 i, int64 n) HOTLOOP_BODY {
    // NaN stays: min and max give their second operand.
    store(min(hi, max(lo, load(args.x + i, n))), args.x + i, n);
  });
}

HOTLOOP_INSTANTIATE(dropout, DropoutArgs)
HOTLOOP_INSTANTIATE(fill, FillArgs)
HOTLOOP_INSTANTIATE(clamp, ClampArgs)

}  // namespace hotloop::HOTLOOP_ISA
