// SPDX-License-Identifier: Apache-2.0
// Sum, mean and maximum over the middle of x (outer, reduce, inner). With inner = 1 the vector runs along
// the row and its lanes are combined; otherwise it runs across the columns, rows in order.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// How outputs (outer, inner) are cut: a chunk is several rows (inner = 1), several whole matrices
// (reduce, inner), or a block of the columns of one.
struct Cut {
  int64 blocks;     // of columns, per matrix
  int64 columns;    // of a block
  int64 per_chunk;  // blocks per chunk; more than one only if the whole matrix is one block
  int64 total;      // blocks in all
};

constexpr Cut cut_reduction(int64 outer, int64 reduce, int64 inner) {
  if (inner == 1) return {1, 1, rows_per_chunk(reduce), outer};
  const int64 columns = columns_per_chunk(reduce, inner);
  const int64 blocks = ceil_div(inner, columns);
  return {blocks, columns, blocks == 1 ? rows_per_chunk(reduce * inner) : 1, outer * blocks};
}

// body(matrix, first column, end column) for each block of a chunk
template <class Args, class Body>
HOTLOOP_INLINE void for_blocks(const Args& a, int64 chunk, Body&& body) {
  const Cut cut = cut_reduction(a.outer, a.reduce, a.inner);
  const Range range = chunk_range(chunk, cut.per_chunk, cut.total);
  for (int64 block = range.begin; block < range.end; ++block) {
    const Range columns = chunk_range(block % cut.blocks, cut.columns, a.inner);
    body(block / cut.blocks, columns.begin, columns.end);
  }
}

template <class Args>
int64 reduction_chunks(const Args& a) {
  const Cut cut = cut_reduction(a.outer, a.reduce, a.inner);
  return ceil_div(cut.total, cut.per_chunk);
}

template <class real>
Vec<real> ones_where(Mask<real> m) {
  return select(m, Vec<real>(real(1)), Vec<real>::zero());
}

// The larger of both, or NaN if either is.
template <class real>
Vec<real> max_or_nan(Vec<real> best, Vec<real> x) {
  return select((best < x) | is_nan(x), x, best);
}

}  // namespace

// out (outer, inner) = sum or mean over reduce of x

template <class real>
int64 reduce_sum_chunks(const ReduceSumArgs<real>& a) {
  return reduction_chunks(a);
}

template <class real>
void reduce_sum_run(const ReduceSumArgs<real>& a, const StepContext&, int64 chunk) {
  const double divisor = a.mean != 0 ? static_cast<double>(a.reduce) : 1.0;
  for_blocks(a, chunk, [&](int64 o, int64 begin, int64 end) HOTLOOP_BODY {
    const real* x = a.x + o * a.reduce * a.inner;
    real* out = a.out + o * a.inner;
    if (a.inner == 1) {
      double total[1];
      sum_row<real>(a.reduce, total,
                    [&](int64 i, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY { term[0] = load(x + i, n); });
      *out = static_cast<real>(total[0] / divisor);
      return;
    }
    sum_columns<real, 1>(
        a.reduce, begin, end,
        [&](int64 row, int64 c, int64 n, Vec<real>(&term)[1])
            HOTLOOP_BODY { term[0] = load(x + row * a.inner + c, n); },
        [&](int64 c, int64 n, Vec<real>(&total)[1])
            HOTLOOP_BODY { store(total[0] / Vec<real>(static_cast<real>(divisor)), out + c, n); });
  });
}

// out (outer, inner) = max over reduce of x; NaN wins

template <class real>
int64 reduce_max_fwd_chunks(const ReduceMaxFwdArgs<real>& a) {
  return reduction_chunks(a);
}

template <class real>
real max_or_nan_row(const real* x, int64 count) {
  Vec<real> nan_lanes = Vec<real>::zero();
  for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
    nan_lanes = select(is_nan(load(x + i, n)), Vec<real>(real(1)), nan_lanes);
  });
  return sum(nan_lanes) > real(0) ? static_cast<real>(__builtin_nan("")) : max_row(x, count);
}

template <class real>
void reduce_max_fwd_run(const ReduceMaxFwdArgs<real>& a, const StepContext&, int64 chunk) {
  for_blocks(a, chunk, [&](int64 o, int64 begin, int64 end) HOTLOOP_BODY {
    const real* x = a.x + o * a.reduce * a.inner;
    real* out = a.out + o * a.inner;
    if (a.inner == 1) {
      *out = max_or_nan_row(x, a.reduce);
      return;
    }
    for_lanes<real>(begin, end, [&](int64 c, int64 n) HOTLOOP_BODY {
      Vec<real> best(-static_cast<real>(__builtin_inf()));
      for (int64 row = 0; row < a.reduce; ++row) best = max_or_nan(best, load(x + row * a.inner + c, n));
      store(best, out + c, n);
    });
  });
}

// dx = dout / ties where x == out, else 0

template <class real>
int64 reduce_max_bwd_chunks(const ReduceMaxBwdArgs<real>& a) {
  return reduction_chunks(a);
}

template <class real>
void max_bwd_row(real* dx, real dout, const real* x, real out, int64 count) {
  const Vec<real> largest(out);
  double ties[1];
  sum_row<real>(count, ties, [&](int64 i, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
    term[0] = first_or(ones_where(load(x + i, n) == largest), n, Vec<real>::zero());
  });
  const Vec<real> share(dout / static_cast<real>(ties[0]));
  for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
    store(select(load(x + i, n) == largest, share, Vec<real>::zero()), dx + i, n);
  });
}

template <class real>
void reduce_max_bwd_run(const ReduceMaxBwdArgs<real>& a, const StepContext&, int64 chunk) {
  for_blocks(a, chunk, [&](int64 o, int64 begin, int64 end) HOTLOOP_BODY {
    const int64 matrix = o * a.reduce * a.inner;
    const real* x = a.x + matrix;
    const real* out = a.out + o * a.inner;
    const real* dout = a.dout + o * a.inner;
    real* dx = a.dx + matrix;
    if (a.inner == 1) {
      max_bwd_row(dx, *dout, x, *out, a.reduce);
      return;
    }
    sum_columns<real, 1>(
        a.reduce, begin, end,
        [&](int64 row, int64 c, int64 n, Vec<real>(&term)[1])
            HOTLOOP_BODY { term[0] = ones_where(load(x + row * a.inner + c, n) == load(out + c, n)); },
        [&](int64 c, int64 n, Vec<real>(&ties)[1]) HOTLOOP_BODY {
          const Vec<real> largest = load(out + c, n);
          const Vec<real> share = load(dout + c, n) / ties[0];
          for (int64 row = 0; row < a.reduce; ++row) {
            const int64 at = row * a.inner + c;
            store(select(load(x + at, n) == largest, share, Vec<real>::zero()), dx + at, n);
          }
        });
  });
}

HOTLOOP_INSTANTIATE(reduce_sum, ReduceSumArgs)
HOTLOOP_INSTANTIATE(reduce_max_fwd, ReduceMaxFwdArgs)
HOTLOOP_INSTANTIATE(reduce_max_bwd, ReduceMaxBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
