// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy, value and gradient in one visit of each row: maximum, exponentials (kept in
// dlogits if it is wanted) and their sum, then the gradient in place. Memory traffic is one read and one
// write per logit. Rows of up to 32 classes are in cross_entropy_short.h. Longer ones go through the stages
// in blocks: a stage of one row waits for its last addition, a stage of many rows does not.
#include "kernels/cross_entropy_short.h"
#include "kernels/lanes.h"
#include "kernels/vec_math.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// A block's logits and gradients are 16 KB, half an L1 cache; its statistics are on the stack.
constexpr int64 kBlockElements = 2048;
constexpr int64 kBlockRows = kBlockElements / kShortCols;

// What a row's loss is made of: sum_c q_c (lse - x_c) = offset + mass * log(sum_exp).
template <class real>
struct RowParts {
  real largest;    // max x
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

template <class real>
HOTLOOP_INLINE real* gradient_row(const CrossEntropyArgs<real>& a, int64 row) {
  return a.dlogits != nullptr ? a.dlogits + row * a.cols : nullptr;
}

template <class real>
HOTLOOP_INLINE double drow_of(const CrossEntropyArgs<real>& a, int64 row) {
  return a.drow != nullptr ? static_cast<double>(a.drow[row]) : 1.0;
}

// Row with a label: q is s / cols everywhere, plus 1 - s at the label.
template <class real>
HOTLOOP_INLINE void label_row(const CrossEntropyArgs<real>& a, int64 row, RowParts<real>& parts) {
  const real* x = a.logits + row * a.cols;
  real* d = gradient_row(a, row);
  const int64 label = a.labels[row];
  const double s = a.label_smoothing;
  const double even_q = s / static_cast<double>(a.cols);
  parts.mass = 1.0;
  if (label < 0 || label >= a.cols) {  // refused at the border; here it must only do no harm
    parts.offset = __builtin_nan("");
    for (int64 c = 0; c < a.cols && d != nullptr; ++c) d[c] = real(0);
    return;
  }
  parts.offset = (1.0 - s) * (static_cast<double>(parts.largest) - static_cast<double>(x[label]));
  if (s != 0.0) parts.offset += even_q * sum_below_max(x, parts.largest, a.cols);
  if (d == nullptr) return;
  const double drow = drow_of(a, row);
  const double inverse = 1.0 / parts.sum_exp;
  const double own = static_cast<double>(d[label]) * inverse - (1.0 - s + even_q);
  const Vec<real> scale(static_cast<real>(drow * inverse));
  const Vec<real> even(static_cast<real>(drow * even_q));
  for_lanes<real>(0, a.cols,
                  [&](int64 c, int64 n) HOTLOOP_BODY { store(load(d + c, n) * scale - even, d + c, n); });
  d[label] = static_cast<real>(drow * own);
}

// Row with probabilities: q = (1 - s) * probs + s / cols.
template <class real>
HOTLOOP_INLINE void probs_row(const CrossEntropyArgs<real>& a, int64 row, RowParts<real>& parts) {
  const real* x = a.logits + row * a.cols;
  const real* probs = a.probs + row * a.cols;
  real* d = gradient_row(a, row);
  const Vec<real> keep(static_cast<real>(1.0 - a.label_smoothing));
  const Vec<real> even(static_cast<real>(a.label_smoothing / static_cast<double>(a.cols)));
  const Vec<real> top(parts.largest);
  double total[2];
  sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&terms)[2]) HOTLOOP_BODY {
    const Vec<real> q = first_or(fma(keep, load(probs + c, n), even), n, Vec<real>::zero());
    terms[0] = first_or(q * (top - load(x + c, n)), n, Vec<real>::zero());
    terms[1] = q;
  });
  parts.offset = total[0];
  parts.mass = total[1];
  if (d == nullptr) return;
  const double drow = drow_of(a, row);
  const Vec<real> scale(static_cast<real>(drow * parts.mass / parts.sum_exp));
  const Vec<real> weight(static_cast<real>(drow));
  for_lanes<real>(0, a.cols, [&](int64 c, int64 n) HOTLOOP_BODY {
    const Vec<real> q = fma(keep, load(probs + c, n), even);
    store(fnma(weight, q, load(d + c, n) * scale), d + c, n);
  });
}

// row_loss (count) = offset + mass * log(sum_exp)
template <class real>
HOTLOOP_INLINE void store_losses(real* row_loss, const RowParts<real>* parts, int64 count) {
  real sum_exp[kBlockRows];
  real offset[kBlockRows];
  real mass[kBlockRows];
  for (int64 i = 0; i < count; ++i) {
    sum_exp[i] = static_cast<real>(parts[i].sum_exp);
    offset[i] = static_cast<real>(parts[i].offset);
    mass[i] = static_cast<real>(parts[i].mass);
  }
  for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
    store(fma(load(mass + i, n), log(load(sum_exp + i, n)), load(offset + i, n)), row_loss + i, n);
  });
}

// The rows [begin, end), at most kBlockRows.
template <class real>
HOTLOOP_INLINE void cross_entropy_block(const CrossEntropyArgs<real>& a, int64 begin, int64 end) {
  const int64 count = end - begin;
  const real* x = a.logits + begin * a.cols;
  RowParts<real> parts[kBlockRows];
  for (int64 i = 0; i < count; ++i) parts[i].largest = max_row(x + i * a.cols, a.cols);
  for (int64 i = 0; i < count; ++i) {
    parts[i].sum_exp = sum_exp_row(x + i * a.cols, parts[i].largest, gradient_row(a, begin + i), a.cols);
  }
  for (int64 i = 0; i < count; ++i) {
    if (a.labels != nullptr) {
      label_row(a, begin + i, parts[i]);
    } else {
      probs_row(a, begin + i, parts[i]);
    }
  }
  if (a.row_loss != nullptr) store_losses(a.row_loss + begin, parts, count);
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
  if (a.cols <= kShortCols) {
    cross_entropy_short_rows(a, rows.begin, rows.end);
    return;
  }
  const int64 per_block = a.cols < kBlockElements ? kBlockElements / a.cols : 1;
  for (int64 begin = rows.begin; begin < rows.end; begin += per_block) {
    cross_entropy_block(a, begin, rows.end - begin < per_block ? rows.end : begin + per_block);
  }
}

HOTLOOP_INSTANTIATE(cross_entropy, CrossEntropyArgs)

}  // namespace hotloop::HOTLOOP_ISA
