// SPDX-License-Identifier: Apache-2.0
// softmax and log_softmax over the last dimension. A row is read three times while it is in the cache:
// maximum, exponentials and their sum, scale. A NaN is left out of the maximum and comes back through the
// sum, so it fills its own row and no other.
#include "kernels/lanes.h"
#include "kernels/vec_math.h"

namespace hotloop::HOTLOOP_ISA {

// y (rows, cols) = exp(x - max) / sum(exp(x - max))

template <class real>
int64 softmax_fwd_chunks(const SoftmaxFwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
HOTLOOP_INLINE void softmax_row(real* y, const real* x, int64 cols) {
  const Vec<real> largest(max_row(x, cols));
  double total[1];
  sum_row<real>(cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
    const Vec<real> e = exp(load(x + c, n) - largest);
    store(e, y + c, n);
    term[0] = first_or(e, n, Vec<real>::zero());
  });
  const Vec<real> scale(static_cast<real>(1.0 / total[0]));
  for_lanes<real>(0, cols, [&](int64 c, int64 n) HOTLOOP_BODY { store(load(y + c, n) * scale, y + c, n); });
}

template <class real>
void softmax_fwd_run(const SoftmaxFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    softmax_row(a.y + row * a.cols, a.x + row * a.cols, a.cols);
  }
}

// dx = y * (dy - sum(dy * y))

template <class real>
int64 softmax_bwd_chunks(const SoftmaxBwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void softmax_bwd_run(const SoftmaxBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* dy = a.dy + row * a.cols;
    const real* y = a.y + row * a.cols;
    real* dx = a.dx + row * a.cols;
    double total[1];
    sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
      term[0] = load(dy + c, n) * load(y + c, n);
    });
    const Vec<real> dot(static_cast<real>(total[0]));
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      store(load(y + c, n) * (load(dy + c, n) - dot), dx + c, n);
    });
  }
}

// y (rows, cols) = (x - max) - log(sum(exp(x - max)))

template <class real>
int64 log_softmax_fwd_chunks(const SoftmaxFwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void log_softmax_fwd_run(const SoftmaxFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* x = a.x + row * a.cols;
    real* y = a.y + row * a.cols;
    const Vec<real> largest(max_row(x, a.cols));
    double total[1];
    sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
      term[0] = first_or(exp(load(x + c, n) - largest), n, Vec<real>::zero());
    });
    const Vec<real> log_sum(static_cast<real>(::log(total[0])));
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      store((load(x + c, n) - largest) - log_sum, y + c, n);
    });
  }
}

// dx = dy - exp(y) * sum(dy)

template <class real>
int64 log_softmax_bwd_chunks(const SoftmaxBwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void log_softmax_bwd_run(const SoftmaxBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* dy = a.dy + row * a.cols;
    const real* y = a.y + row * a.cols;
    real* dx = a.dx + row * a.cols;
    double total[1];
    sum_row<real>(a.cols, total,
                  [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY { term[0] = load(dy + c, n); });
    const Vec<real> dot(static_cast<real>(total[0]));
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      store(fnma(exp(load(y + c, n)), dot, load(dy + c, n)), dx + c, n);
    });
  }
}

HOTLOOP_INSTANTIATE(softmax_fwd, SoftmaxFwdArgs)
HOTLOOP_INSTANTIATE(softmax_bwd, SoftmaxBwdArgs)
HOTLOOP_INSTANTIATE(log_softmax_fwd, SoftmaxFwdArgs)
HOTLOOP_INSTANTIATE(log_softmax_bwd, SoftmaxBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
