// SPDX-License-Identifier: Apache-2.0
// BatchNorm over the rows of x (rows, cols). A chunk owns whole columns, so every statistic has one order
// of summation; its columns of x stay in the cache between the passes.
#include <math.h>

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

template <class real>
HOTLOOP_INLINE Vec<real> inverse_root(Vec<real> variance, double eps) {
  return Vec<real>(real(1)) / sqrt(variance + Vec<real>(static_cast<real>(eps)));
}

}  // namespace

// mean, rstd (cols) of the batch; running statistics; y (rows, cols)

template <class real>
int64 batch_norm_fwd_chunks(const BatchNormFwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows, a.cols));
}

// running = (1 - momentum) * running + momentum * batch
template <class real>
HOTLOOP_INLINE void update_running(real* running, Vec<real> batch, double momentum, int64 c, int64 n) {
  const Vec<real> old = load(running + c, n);
  const Vec<real> keep(static_cast<real>(1.0 - momentum));
  store(fma(keep, old, Vec<real>(static_cast<real>(momentum)) * batch), running + c, n);
}

template <class real>
void batch_norm_fwd_run(const BatchNormFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range columns = chunk_range(chunk, columns_per_chunk(a.rows, a.cols), a.cols);
  const double rows = a.rows > 0 ? static_cast<double>(a.rows) : 1.0;
  const Vec<real> count(static_cast<real>(rows));
  const Vec<real> unbias(static_cast<real>(a.rows > 1 ? rows / (rows - 1.0) : 1.0));
  sum_columns<real, 1>(
      a.rows, columns.begin, columns.end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&term)[1])
          HOTLOOP_BODY { term[0] = load(a.x + row * a.cols + c, n); },
      [&](int64 c, int64 n, Vec<real>(&total)[1]) HOTLOOP_BODY { store(total[0] / count, a.mean + c, n); });
  sum_columns<real, 1>(
      a.rows, columns.begin, columns.end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
        const Vec<real> d = load(a.x + row * a.cols + c, n) - load(a.mean + c, n);
        term[0] = d * d;
      },
      [&](int64 c, int64 n, Vec<real>(&total)[1]) HOTLOOP_BODY {
        const Vec<real> variance = total[0] / count;
        store(inverse_root(variance, a.eps), a.rstd + c, n);
        if (a.rows == 0) return;  // nothing was seen: the running statistics stay
        if (a.running_mean != nullptr) update_running(a.running_mean, load(a.mean + c, n), a.momentum, c, n);
        if (a.running_var != nullptr) update_running(a.running_var, variance * unbias, a.momentum, c, n);
      });
  for (int64 row = 0; row < a.rows; ++row) {
    for_lanes<real>(columns.begin, columns.end, [&](int64 c, int64 n) HOTLOOP_BODY {
      const int64 at = row * a.cols + c;
      const Vec<real> hat = (load(a.x + at, n) - load(a.mean + c, n)) * load(a.rstd + c, n);
      store(fma(hat, load_or(a.weight, c, n, real(1)), load_or(a.bias, c, n, real(0))), a.y + at, n);
    });
  }
}

// y (rows, cols) from the running statistics (cols)

template <class real>
int64 batch_norm_eval_chunks(const BatchNormEvalArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void batch_norm_eval_run(const BatchNormEvalArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
    const Vec<real> mean = load(a.running_mean + c, n);
    const Vec<real> rstd = inverse_root(load(a.running_var + c, n), a.eps);
    const Vec<real> weight = load_or(a.weight, c, n, real(1));
    const Vec<real> bias = load_or(a.bias, c, n, real(0));
    for (int64 at = rows.begin * a.cols + c; at < rows.end * a.cols; at += a.cols) {
      store(fma((load(a.x + at, n) - mean) * rstd, weight, bias), a.y + at, n);
    }
  });
}

// hat = (x - mean) * rstd;  dbias = sum(dy), dweight = sum(dy * hat);
// dx = weight * rstd * (dy - dbias / rows - hat * dweight / rows)

template <class real>
int64 batch_norm_bwd_chunks(const BatchNormBwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows, a.cols));
}

// One block of at most kMaxColumns columns, whose means stay on the stack between the two passes.
template <class real>
HOTLOOP_INLINE void batch_norm_bwd_block(const BatchNormBwdArgs<real>& a, int64 begin, int64 end) {
  real mean_dy[kMaxColumns];
  real mean_dyh[kMaxColumns];
  const Vec<real> count(static_cast<real>(a.rows));
  const auto hat = [&](int64 at, int64 c, int64 n) HOTLOOP_BODY {
    return (load(a.x + at, n) - load(a.mean + c, n)) * load(a.rstd + c, n);
  };
  sum_columns<real, 2>(
      a.rows, begin, end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
        const int64 at = row * a.cols + c;
        terms[0] = load(a.dy + at, n);
        terms[1] = terms[0] * hat(at, c, n);
      },
      [&](int64 c, int64 n, Vec<real>(&totals)[2]) HOTLOOP_BODY {
        if (a.dbias != nullptr) store(totals[0], a.dbias + c, n);
        if (a.dweight != nullptr) store(totals[1], a.dweight + c, n);
        store(totals[0] / count, mean_dy + (c - begin), n);
        store(totals[1] / count, mean_dyh + (c - begin), n);
      });
  for (int64 row = 0; row < a.rows; ++row) {
    for_lanes<real>(begin, end, [&](int64 c, int64 n) HOTLOOP_BODY {
      const int64 at = row * a.cols + c;
      const Vec<real> scale = load_or(a.weight, c, n, real(1)) * load(a.rstd + c, n);
      const Vec<real> centred = load(a.dy + at, n) - load(mean_dy + (c - begin), n);
      store(scale * fnma(hat(at, c, n), load(mean_dyh + (c - begin), n), centred), a.dx + at, n);
    });
  }
}

template <class real>
void batch_norm_bwd_run(const BatchNormBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range columns = chunk_range(chunk, columns_per_chunk(a.rows, a.cols), a.cols);
  for (int64 begin = columns.begin; begin < columns.end; begin += kMaxColumns) {
    const int64 end = columns.end - begin < kMaxColumns ? columns.end : begin + kMaxColumns;
    batch_norm_bwd_block(a, begin, end);
  }
}

HOTLOOP_INSTANTIATE(batch_norm_fwd, BatchNormFwdArgs)
HOTLOOP_INSTANTIATE(batch_norm_eval, BatchNormEvalArgs)
HOTLOOP_INSTANTIATE(batch_norm_bwd, BatchNormBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
