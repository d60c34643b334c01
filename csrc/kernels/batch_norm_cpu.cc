// SPDX-License-Identifier: Apache-2.0
// BatchNorm over the rows of x (rows, cols). A chunk owns whole columns, so every statistic has one order
// of summation; its columns of x stay in the cache between the passes.
#include <math.h>

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// scale and shift (cols) of one vector of columns: weight and bias, 1 and 0 where they are absent.
template <class real>
struct Affine {
  Vec<real> weight, bias;

  Affine(const real* w, const real* b, int64 c, int64 n)
      : weight(w != nullptr ? load(w + c, n) : Vec<real>(real(1))),
        bias(b != nullptr ? load(b + c, n) : Vec<real>::zero()) {}
};

// y = (x - mean) * rstd * weight + bias for the rows of one vector of columns
template <class real>
HOTLOOP_INLINE void normalize_columns(real* y, const real* x, int64 rows, int64 cols, int64 c, int64 n,
                                      Vec<real> mean, Vec<real> rstd, Affine<real> affine) {
  for (int64 at = c; at < rows * cols; at += cols) {
    store(fma((load(x + at, n) - mean) * rstd, affine.weight, affine.bias), y + at, n);
  }
}

template <class real>
HOTLOOP_INLINE Vec<real> inverse_root(Vec<real> variance, double eps) {
  return Vec<real>(real(1)) / sqrt(variance + Vec<real>(static_cast<real>(eps)));
}

}  // namespace

// mean, rstd (cols) of the batch; running statistics; y (rows, cols)

template <class real>
int64 batch_norm_fwd_chunks(const BatchNormFwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows));
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
  const Range columns = chunk_range(chunk, columns_per_chunk(a.rows), a.cols);
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
        const Vec<real> mean = load(a.mean + c, n);
        const Vec<real> variance = total[0] / count;
        const Vec<real> rstd = inverse_root(variance, a.eps);
        store(rstd, a.rstd + c, n);
        normalize_columns(a.y, a.x, a.rows, a.cols, c, n, mean, rstd, Affine<real>(a.weight, a.bias, c, n));
        if (a.rows == 0) return;  // nothing was seen: the running statistics stay
        if (a.running_mean != nullptr) update_running(a.running_mean, mean, a.momentum, c, n);
        if (a.running_var != nullptr) update_running(a.running_var, variance * unbias, a.momentum, c, n);
      });
}

// y (rows, cols) from the running statistics (cols)

template <class real>
int64 batch_norm_eval_chunks(const BatchNormEvalArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void batch_norm_eval_run(const BatchNormEvalArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  const int64 first = rows.begin * a.cols;
  for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
    const Vec<real> rstd = inverse_root(load(a.running_var + c, n), a.eps);
    normalize_columns(a.y + first, a.x + first, rows.end - rows.begin, a.cols, c, n,
                      load(a.running_mean + c, n), rstd, Affine<real>(a.weight, a.bias, c, n));
  });
}

// hat = (x - mean) * rstd;  dbias = sum(dy), dweight = sum(dy * hat);
// dx = weight * rstd * (dy - dbias / rows - hat * dweight / rows)

template <class real>
int64 batch_norm_bwd_chunks(const BatchNormBwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows));
}

template <class real>
void batch_norm_bwd_run(const BatchNormBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range columns = chunk_range(chunk, columns_per_chunk(a.rows), a.cols);
  const auto hat = [&](int64 at, int64 c, int64 n) HOTLOOP_BODY {
    return (load(a.x + at, n) - load(a.mean + c, n)) * load(a.rstd + c, n);
  };
  sum_columns<real, 2>(
      a.rows, columns.begin, columns.end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
        const int64 at = row * a.cols + c;
        terms[0] = load(a.dy + at, n);
        terms[1] = terms[0] * hat(at, c, n);
      },
      [&](int64 c, int64 n, Vec<real>(&totals)[2]) HOTLOOP_BODY {
        if (a.dbias != nullptr) store(totals[0], a.dbias + c, n);
        if (a.dweight != nullptr) store(totals[1], a.dweight + c, n);
        const Vec<real> count(static_cast<real>(a.rows));
        const Vec<real> mean_dy = totals[0] / count;
        const Vec<real> mean_dyh = totals[1] / count;
        const Vec<real> scale = Affine<real>(a.weight, nullptr, c, n).weight * load(a.rstd + c, n);
        for (int64 at = c; at < a.rows * a.cols; at += a.cols) {
          const Vec<real> centred = load(a.dy + at, n) - mean_dy;
          store(scale * fnma(hat(at, c, n), mean_dyh, centred), a.dx + at, n);
        }
      });
}

HOTLOOP_INSTANTIATE(batch_norm_fwd, BatchNormFwdArgs)
HOTLOOP_INSTANTIATE(batch_norm_eval, BatchNormEvalArgs)
HOTLOOP_INSTANTIATE(batch_norm_bwd, BatchNormBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
