// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy, value and gradient in one visit of each row: maximum, exponentials (kept in
// dlogits if it is wanted) and their sum, then the gradient in place. Memory traffic is one read and one
// write per logit. The logarithms of a block of rows are taken together, as vectors.
#include "cpu/vec_math.h"
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// Rows whose logarithms wait: 64 doubles and 64 reals stay in registers' reach, the L1 cache.
constexpr int64 kRowBlock = 64;

// What a row's loss is made of: sum_c q_c (lse - x_c) = offset + mass * log(sum_exp).
struct RowParts {
  double sum_exp;  // sum exp(x - max)
  double offset;   // sum q (max - x)
  double mass;     // sum q
};

// sum_exp of a row (cols); the exponentials go to e unless it is null.
template <class real>
HOTLOOP_INLINE double sum_exp_row(const real* x, real largest, real* e, int64 cols) {
  const Vec<real> top(largest);
  double total[1];
  sum_row<real>(cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
    const Vec<real> value = exp(load(x + c, n) - top);
    if (e != nullptr) store(value, e + c, n);
    term[0] = first_or(value, n, Vec<real>::zero());
  });
  return total[0];
}

// sum over a row (cols) of (max - x)
template <class real>
HOTLOOP_INLINE double sum_below_max(const real* x, real largest, int64 cols) {
  const Vec<real> top(largest);
  double total[1];
  sum_row<real>(cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
    term[0] = first_or(top - load(x + c, n), n, Vec<real>::zero());
  });
  return total[0];
}

// Row with a label: q is s / cols everywhere, plus 1 - s at the label.
template <class real>
HOTLOOP_INLINE RowParts label_row(const CrossEntropyArgs<real>& a, int64 row) {
  const real* x = a.logits + row * a.cols;
  real* d = a.dlogits != nullptr ? a.dlogits + row * a.cols : nullptr;
  const int64 label = a.labels[row];
  const double s = a.label_smoothing;
  const real largest = max_row(x, a.cols);
  RowParts parts{sum_exp_row(x, largest, d, a.cols), 0.0, 1.0};
  if (label < 0 || label >= a.cols) {  // refused at the border; here it must only do no harm
    parts.offset = __builtin_nan("");
    if (d != nullptr) {
      for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY { store(Vec<real>::zero(), d + c, n); });
    }
    return parts;
  }
  parts.offset = (1.0 - s) * (static_cast<double>(largest) - static_cast<double>(x[label]));
  if (s != 0.0) parts.offset += s / static_cast<double>(a.cols) * sum_below_max(x, largest, a.cols);
  if (d != nullptr) {
    const double drow = a.drow != nullptr ? static_cast<double>(a.drow[row]) : 1.0;
    const double even_q = s / static_cast<double>(a.cols);
    const double own = static_cast<double>(d[label]) / parts.sum_exp - (1.0 - s + even_q);
    const Vec<real> scale(static_cast<real>(drow / parts.sum_exp));
    const Vec<real> even(static_cast<real>(drow * even_q));
    for_lanes<real>(0, a.cols,
                    [&](int64 c, int64 n) HOTLOOP_BODY { store(load(d + c, n) * scale - even, d + c, n); });
    d[label] = static_cast<real>(drow * own);
  }
  return parts;
}

// Row with probabilities: q = (1 - s) * probs + s / cols.
template <class real>
HOTLOOP_INLINE RowParts probs_row(const CrossEntropyArgs<real>& a, int64 row) {
  const real* x = a.logits + row * a.cols;
  const real* probs = a.probs + row * a.cols;
  real* d = a.dlogits != nullptr ? a.dlogits + row * a.cols : nullptr;
  const Vec<real> keep(static_cast<real>(1.0 - a.label_smoothing));
  const Vec<real> even(static_cast<real>(a.label_smoothing / static_cast<double>(a.cols)));
  const real largest = max_row(x, a.cols);
  const Vec<real> top(largest);
  RowParts parts{sum_exp_row(x, largest, d, a.cols), 0.0, 0.0};
  double total[2];
  sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
    const Vec<real> q = first_or(fma(keep, load(probs + c, n), even), n, Vec<real>::zero());
    terms[0] = first_or(q * (top - load(x + c, n)), n, Vec<real>::zero());
    terms[1] = q;
  });
  parts.offset = total[0];
  parts.mass = total[1];
  if (d != nullptr) {
    const double drow = a.drow != nullptr ? static_cast<double>(a.drow[row]) : 1.0;
    const Vec<real> scale(static_cast<real>(drow * parts.mass / parts.sum_exp));
    const Vec<real> weight(static_cast<real>(drow));
    for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
      const Vec<real> q = fma(keep, load(probs + c, n), even);
      store(fnma(weight, q, load(d + c, n) * scale), d + c, n);
    });
  }
  return parts;
}

}  // namespace

// row_loss (rows), dlogits (rows, cols) from logits (rows, cols)

template <class real>
int64 cross_entropy_chunks(const CrossEntropyArgs<real>& a) {
  return ceil_div(a.rows, rows_per_chunk(a.cols));
}

template <class real>
void cross_entropy_run(const CrossEntropyArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  for (int64 begin = rows.begin; begin < rows.end; begin += kRowBlock) {
    const int64 count = rows.end - begin < kRowBlock ? rows.end - begin : kRowBlock;
    real sum_exp[kRowBlock];
    real offset[kRowBlock];
    real mass[kRowBlock];
    for (int64 i = 0; i < count; ++i) {
      const RowParts parts = a.labels != nullptr ? label_row(a, begin + i) : probs_row(a, begin + i);
      sum_exp[i] = static_cast<real>(parts.sum_exp);
      offset[i] = static_cast<real>(parts.offset);
      mass[i] = static_cast<real>(parts.mass);
    }
    if (a.row_loss == nullptr) continue;
    for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
      store(fma(load(mass + i, n), log(load(sum_exp + i, n)), load(offset + i, n)), a.row_loss + begin + i,
            n);
    });
  }
}

HOTLOOP_INSTANTIATE(cross_entropy, CrossEntropyArgs)

}  // namespace hotloop::HOTLOOP_ISA
