// SPDX-License-Identifier: Apache-2.0
// LayerNorm and RMSNorm over the last dimension. Mean and centred variance are two passes over a row that
// is in the L1 cache: as accurate as Welford's recurrence, and a vector loop. The gradients of weight and
// bias are sums down the columns, in the order of the rows.
#include <math.h>

#include "kernels/write_lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// While a row in the cache is worked on, the next one is on its way; past the end it is a hint and no more.
template <class real>
HOTLOOP_INLINE void prefetch_row(const real* p) {
  __builtin_prefetch(p);
}

constexpr int64 kFarElements = int64{1}
                               << 20;  // of a matrix, 4 MB: it and another one are beyond an L2 cache

}  // namespace

// y (rows, cols) = (x - mean) * rstd * weight + bias

template <class real>
int64 layer_norm_fwd_chunks(const LayerNormFwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

// The mean of a row, and while its squares are summed, that of the next: a sum's last additions and divisions
// take as long as a pass over 1024 columns, and two that do not wait for each other overlap.
template <class real>
void layer_norm_fwd_run(const LayerNormFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  const bool streamed = streams<real>(a.rows * a.cols);
  const auto mean_of = [&](double total) { return static_cast<real>(total / static_cast<double>(a.cols)); };
  double first[1];
  const real* x = a.x + rows.begin * a.cols;
  sum_row<real>(a.cols, first,
                [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY { term[0] = load(x + c, n); });
  real mean = mean_of(first[0]);
  for (int64 row = rows.begin; row < rows.end; ++row, x += a.cols) {
    const real* next = row + 1 < rows.end ? x + a.cols : x;
    const Vec<real> center(mean);
    double totals[2];
    sum_row<real>(a.cols, totals, [&](int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
      const Vec<real> d = first_or(load(x + c, n) - center, n, Vec<real>::zero());
      terms[0] = d * d;
      terms[1] = load(next + c, n);
    });
    const real rstd = static_cast<real>(1.0 / ::sqrt(totals[0] / static_cast<double>(a.cols) + a.eps));
    const Vec<real> scale(rstd);
    write_lanes<real>({0, a.cols}, a.y + row * a.cols, streamed, [&](int64 c, int64 n) HOTLOOP_BODY {
      prefetch_row(next + a.cols + c);
      const Vec<real> hat = (load(x + c, n) - center) * scale;
      return fma(hat, load_or(a.weight, c, n, real(1)), load_or(a.bias, c, n, real(0)));
    });
    if (a.mean != nullptr) a.mean[row] = mean;
    if (a.rstd != nullptr) a.rstd[row] = rstd;
    mean = mean_of(totals[1]);
  }
  end_stream<real>(streamed);
}

// g = dy * weight, hat = (x - mean) * rstd;  dx = rstd * (g - mean(g) - hat * mean(g * hat))

template <class real>
int64 layer_norm_bwd_chunks(const LayerNormBwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

namespace {

// What the gradient of a row needs to know of it.
template <class real>
struct RowGradient {
  real mean, rstd, mean_g, mean_gh;

  HOTLOOP_INLINE Vec<real> hat(Vec<real> x) const { return (x - Vec<real>(mean)) * Vec<real>(rstd); }
  HOTLOOP_INLINE Vec<real> dx(Vec<real> g, Vec<real> hat) const {
    return Vec<real>(rstd) * fnma(hat, Vec<real>(mean_gh), g - Vec<real>(mean_g));
  }
};

// The sums of a row; each(column, n, dy, hat) on the way.
template <class Args, class real, class Each>
HOTLOOP_INLINE void read_row(const Args& a, int64 row, RowGradient<real>& out, Each&& each) {
  const real* dy = a.dy + row * a.cols;
  const real* x = a.x + row * a.cols;
  out.mean = a.mean[row];
  out.rstd = a.rstd[row];
  double total[2];
  sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
    const Vec<real> gradient = load(dy + c, n);
    const Vec<real> hat = out.hat(load(x + c, n));
    terms[0] = gradient * load_or(a.weight, c, n, real(1));
    terms[1] = terms[0] * hat;
    each(c, n, gradient, hat);
  });
  out.mean_g = static_cast<real>(total[0] / static_cast<double>(a.cols));
  out.mean_gh = static_cast<real>(total[1] / static_cast<double>(a.cols));
}

}  // namespace

template <class real>
void layer_norm_bwd_run(const LayerNormBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* dy = a.dy + row * a.cols;
    const real* x = a.x + row * a.cols;
    real* dx = a.dx + row * a.cols;
    const real* residual = a.residual == nullptr ? nullptr : a.residual + row * a.cols;
    RowGradient<real> gradient;
    read_row(a, row, gradient, [](int64, int64, Vec<real>, Vec<real>) HOTLOOP_BODY {});
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      const Vec<real> g = load(dy + c, n) * load_or(a.weight, c, n, real(1));
      const Vec<real> through = gradient.dx(g, gradient.hat(load(x + c, n)));
      store(residual == nullptr ? through : through + load(residual + c, n), dx + c, n);
    });
  }
}

// The same, and of each 64 rows the sums that make dweight and dbias: x and dy come from memory once.

template <class real>
int64 layer_norm_both_bwd_chunks(const LayerNormBothBwdArgs<real>& a) {
  return ceil_div(a.rows, kColumnRun);
}

template <class real>
void layer_norm_both_bwd_run(const LayerNormBothBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, kColumnRun, a.rows);
  real* dweight = a.partial + chunk * 2 * a.cols;
  real* dbias = dweight + a.cols;
  const bool streamed = streams<real>(a.rows * a.cols);
  for (int64 c = 0; c < 2 * a.cols; ++c) dweight[c] = real(0);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* dys = a.dy + row * a.cols;
    const real* x = a.x + row * a.cols;
    real* dx = a.dx + row * a.cols;
    RowGradient<real> gradient;
    read_row(a, row, gradient, [&](int64 c, int64 n, Vec<real> dy, Vec<real> hat) HOTLOOP_BODY {
      store(fma(dy, hat, load(dweight + c, n)), dweight + c, n);
      store(dy + load(dbias + c, n), dbias + c, n);
    });
    write_lanes<real>({0, a.cols}, dx, streamed, [&](int64 c, int64 n) HOTLOOP_BODY {
      prefetch_row(dys + a.cols + c);
      prefetch_row(x + a.cols + c);
      const Vec<real> g = load(dys + c, n) * load_or(a.weight, c, n, real(1));
      return gradient.dx(g, gradient.hat(load(x + c, n)));
    });
  }
  end_stream<real>(streamed);
}

// dweight (cols) = sum over rows of dy * hat;  dbias (cols) = sum over rows of dy

template <class real>
int64 layer_norm_param_bwd_chunks(const LayerNormParamBwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows, a.cols));
}

namespace {

// The sums of some columns. Long ones fetch the next rows, which a step further down the columns are too far
// for processors to foresee: of 4096 x 1024 that takes off half of the time.
template <class real>
void sum_param_columns(const LayerNormParamBwdArgs<real>& a, Range columns) {
  const int64 strip = strip_rows(a.cols);
  const bool far = a.rows * a.cols >= kFarElements && strip == 2;
  sum_columns<real, 2>(
      a.rows, columns.begin, columns.end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
        if (far) {
          prefetch_row(a.x + (row + strip) * a.cols + c);
          prefetch_row(a.dy + (row + strip) * a.cols + c);
        }
        const Vec<real> hat =
            (load(a.x + row * a.cols + c, n) - Vec<real>(a.mean[row])) * Vec<real>(a.rstd[row]);
        terms[0] = load(a.dy + row * a.cols + c, n);
        terms[1] = terms[0] * hat;
      },
      [&](int64 c, int64 n, Vec<real>(&totals)[2]) HOTLOOP_BODY {
        if (a.dbias != nullptr) store(totals[0], a.dbias + c, n);
        if (a.dweight != nullptr) store(totals[1], a.dweight + c, n);
      },
      strip);
}

}  // namespace

template <class real>
void layer_norm_param_bwd_run(const LayerNormParamBwdArgs<real>& a, const StepContext&, int64 chunk) {
  sum_param_columns(a, chunk_range(chunk, columns_per_chunk(a.rows, a.cols), a.cols));
}
// One thread reads whole rows: a column's sum does not depend on those beside it.
template <class real>
void all_chunks(const LayerNormParamBwdArgs<real>& a, const StepContext&) {
  sum_param_columns(a, {0, a.cols});
}

// y (rows, cols) = x * rstd * weight;  rstd = 1 / sqrt(mean(x^2) + eps)

template <class real>
int64 rms_norm_fwd_chunks(const RmsNormFwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void rms_norm_fwd_run(const RmsNormFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  const bool streamed = streams<real>(a.rows * a.cols);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* x = a.x + row * a.cols;
    real* y = a.y + row * a.cols;
    double total[1];
    sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
      const Vec<real> value = load(x + c, n);
      term[0] = value * value;
    });
    const real rstd = static_cast<real>(1.0 / ::sqrt(total[0] / static_cast<double>(a.cols) + a.eps));
    const Vec<real> scale(rstd);
    write_lanes<real>({0, a.cols}, y, streamed, [&](int64 c, int64 n) HOTLOOP_BODY {
      if (streamed) prefetch_row(x + a.cols + c);  // in a cache hints only cost
      return load(x + c, n) * scale * load_or(a.weight, c, n, real(1));
    });
    if (a.rstd != nullptr) a.rstd[row] = rstd;
  }
  end_stream<real>(streamed);
}

// g = dy * weight, hat = x * rstd;  dx = rstd * (g - hat * mean(g * hat))

template <class real>
int64 rms_norm_bwd_chunks(const RmsNormBwdArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void rms_norm_bwd_run(const RmsNormBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const real* dy = a.dy + row * a.cols;
    const real* x = a.x + row * a.cols;
    real* dx = a.dx + row * a.cols;
    const real* residual = a.residual == nullptr ? nullptr : a.residual + row * a.cols;
    const Vec<real> rstd(a.rstd[row]);
    double total[1];
    sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
      term[0] = load(dy + c, n) * load_or(a.weight, c, n, real(1)) * (load(x + c, n) * rstd);
    });
    const Vec<real> mean_gh(static_cast<real>(total[0] / static_cast<double>(a.cols)));
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      const Vec<real> g = load(dy + c, n) * load_or(a.weight, c, n, real(1));
      const Vec<real> through = rstd * fnma(load(x + c, n) * rstd, mean_gh, g);
      store(residual == nullptr ? through : through + load(residual + c, n), dx + c, n);
    });
  }
}

// dweight (cols) = sum over rows of dy * x * rstd

template <class real>
int64 rms_norm_param_bwd_chunks(const RmsNormParamBwdArgs<real>& a) {
  return ceil_div(a.cols, columns_per_chunk(a.rows, a.cols));
}

namespace {

template <class real>
void sum_param_columns(const RmsNormParamBwdArgs<real>& a, Range columns) {
  const int64 strip = strip_rows(a.cols);
  const bool far = a.rows * a.cols >= kFarElements && strip == 2;
  sum_columns<real, 1>(
      a.rows, columns.begin, columns.end,
      [&](int64 row, int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
        const int64 at = row * a.cols + c;
        if (far) {
          prefetch_row(a.x + at + strip * a.cols);
          prefetch_row(a.dy + at + strip * a.cols);
        }
        term[0] = load(a.dy + at, n) * (load(a.x + at, n) * Vec<real>(a.rstd[row]));
      },
      [&](int64 c, int64 n, Vec<real>(&total)[1]) HOTLOOP_BODY { store(total[0], a.dweight + c, n); }, strip);
}

}  // namespace

template <class real>
void rms_norm_param_bwd_run(const RmsNormParamBwdArgs<real>& a, const StepContext&, int64 chunk) {
  sum_param_columns(a, chunk_range(chunk, columns_per_chunk(a.rows, a.cols), a.cols));
}
template <class real>
void all_chunks(const RmsNormParamBwdArgs<real>& a, const StepContext&) {
  sum_param_columns(a, {0, a.cols});
}

#define HOTLOOP_INSTANTIATE_ALL(real)                                                     \
  template void all_chunks<real>(const LayerNormParamBwdArgs<real>&, const StepContext&); \
  template void all_chunks<real>(const RmsNormParamBwdArgs<real>&, const StepContext&);
HOTLOOP_INSTANTIATE_ALL(float)
#ifdef HOTLOOP_ISA_HAS_DOUBLE
HOTLOOP_INSTANTIATE_ALL(double)
#endif
#undef HOTLOOP_INSTANTIATE_ALL

HOTLOOP_INSTANTIATE(layer_norm_fwd, LayerNormFwdArgs)
HOTLOOP_INSTANTIATE(layer_norm_bwd, LayerNormBwdArgs)
HOTLOOP_INSTANTIATE(layer_norm_both_bwd, LayerNormBothBwdArgs)
HOTLOOP_INSTANTIATE(layer_norm_param_bwd, LayerNormParamBwdArgs)
HOTLOOP_INSTANTIATE(rms_norm_fwd, RmsNormFwdArgs)
HOTLOOP_INSTANTIATE(rms_norm_bwd, RmsNormBwdArgs)
HOTLOOP_INSTANTIATE(rms_norm_param_bwd, RmsNormParamBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
