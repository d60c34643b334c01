// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of dense tensors: every function of unary.def with its gradient, dropout, fill and
// clamp. Chunks are runs of kElementwiseChunk elements; the functions themselves are in math.h.
#include "kernels/dropout.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/write_lanes.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

constexpr Range elements(int64 chunk, int64 n) { return chunk_range(chunk, kElementwiseChunk, n); }

template <class F, class real>
void unary_fwd(const UnaryFwdArgs<real>& args, int64 chunk) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  const bool streamed = streams<real>(args.n) && args.y != args.x;
  write_lanes<real>(elements(chunk, args.n), args.y, streamed,
                    [&](int64 i, int64 n) HOTLOOP_BODY { return F::value(load(args.x + i, n), p0, p1); });
  end_stream<real>(streamed);
}

// dx = dropout(dy) * f'(saved)
template <class F, class real>
void unary_bwd(const UnaryBwdArgs<real>& args, const StepContext& ctx, int64 chunk) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  const Range range = elements(chunk, args.n);
  const bool streamed = streams<real>(args.n) && args.dx != args.dy && args.dx != args.saved;
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  if (mask.identity()) {
    write_lanes<real>(range, args.dx, streamed, [&](int64 i, int64 n) HOTLOOP_BODY {
      return F::grad(load(args.saved + i, n), load(args.dy + i, n), p0, p1);
    });
  } else {
    for_kept_runs(
        mask, range.begin, range.end - range.begin, to_boundary(args.dx + range.begin),
        [&](int64 at, int64 count, const auto& kept) {
          const int64 begin = range.begin + at;
          write_lanes<real>({begin, begin + count}, args.dx, streamed, [&](int64 i, int64 n) HOTLOOP_BODY {
            fetch_run(args.saved + i);
            fetch_run(args.dy + i);
            return F::grad(load(args.saved + i, n), kept.drop(load(args.dy + i, n), i - begin), p0, p1);
          });
        });
  }
  end_stream<real>(streamed);
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
  const bool streamed = streams<real>(args.n) && args.y != args.x;
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  if (mask.identity()) {
    write_lanes<real>(range, args.y, streamed,
                      [&](int64 i, int64 n) HOTLOOP_BODY { return load(args.x + i, n); });
  } else {
    for_kept_runs(mask, range.begin, range.end - range.begin, to_boundary(args.y + range.begin),
                  [&](int64 at, int64 count, const auto& kept) {
                    const int64 begin = range.begin + at;
                    write_lanes<real>({begin, begin + count}, args.y, streamed,
                                      [&](int64 i, int64 n) HOTLOOP_BODY {
                                        fetch_run(args.x + i);
                                        return kept.drop(load(args.x + i, n), i - begin);
                                      });
                  });
  }
  end_stream<real>(streamed);
}

template <class real>
int64 fill_chunks(const FillArgs<real>& args) {
  return ceil_div(args.n, kElementwiseChunk);
}

template <class real>
void fill_run(const FillArgs<real>& args, const StepContext&, int64 chunk) {
  const Vec<real> value(static_cast<real>(args.value));
  const bool streamed = streams<real>(args.n);
  write_lanes<real>(elements(chunk, args.n), args.out, streamed,
                    [&](int64, int64) HOTLOOP_BODY { return value; });
  end_stream<real>(streamed);
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
