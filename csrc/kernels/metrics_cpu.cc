// SPDX-License-Identifier: Apache-2.0
// Metrics of an epoch: each batch adds to totals in double, in the order of the rows. Every total has one
// writer, so chunks are of columns where those have totals of their own, and one in all where not: the work
// is a fraction of the loss's.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

namespace {

// Whether x[label] is the first largest of a row (cols). Any NaN in the row makes it false.
template <class real>
bool is_first_largest(const real* x, int64 label, int64 cols) {
  if (label < 0 || label >= cols) return false;
  const real chosen = x[label];
  int beaten = chosen == chosen ? 0 : 1;
  for (int64 c = 0; c < label; ++c) beaten |= x[c] < chosen ? 0 : 1;
  for (int64 c = label + 1; c < cols; ++c) beaten |= x[c] <= chosen ? 0 : 1;
  return beaten == 0;
}

// Whether x[label] is among the k first in descending order. What does not compare, a NaN, stands before it.
template <class real>
bool is_among_largest(const real* x, int64 label, int64 cols, int64 k) {
  if (label < 0 || label >= cols) return false;
  const real chosen = x[label];
  int64 before = 0;
  for (int64 c = 0; c < label; ++c) before += x[c] < chosen ? 0 : 1;
  for (int64 c = label + 1; c < cols; ++c) before += x[c] <= chosen ? 0 : 1;
  return chosen == chosen && before < k;
}

template <class real>
int64 first_largest(const real* x, int64 cols) {
  int64 best = 0;
  for (int64 c = 1; c < cols; ++c) best = x[c] > x[best] ? c : best;
  return best;
}

}  // namespace

// totals (2) += [rows whose first largest logit is the label, rows]

template <class real>
int64 accuracy_chunks(const AccuracyArgs<real>&) {
  return 1;
}

template <class real>
void accuracy_run(const AccuracyArgs<real>& a, const StepContext&, int64) {
  int64 right = 0;
  for (int64 row = 0; row < a.rows; ++row) {
    const int64 label = a.labels != nullptr ? a.labels[row] : first_largest(a.probs + row * a.cols, a.cols);
    right += is_first_largest(a.logits + row * a.cols, label, a.cols) ? 1 : 0;
  }
  a.totals[0] += static_cast<double>(right);
  a.totals[1] += static_cast<double>(a.rows);
}

// totals (2) += [rows whose label is among the k largest logits, rows]

template <class real>
int64 top_k_accuracy_chunks(const TopKAccuracyArgs<real>&) {
  return 1;
}

template <class real>
void top_k_accuracy_run(const TopKAccuracyArgs<real>& a, const StepContext&, int64) {
  int64 right = 0;
  for (int64 row = 0; row < a.rows; ++row)
    right += is_among_largest(a.logits + row * a.cols, a.labels[row], a.cols, a.top_k) ? 1 : 0;
  a.totals[0] += static_cast<double>(right);
  a.totals[1] += static_cast<double>(a.rows);
}

// totals (2) += [elements where (logit > 0) == (target > 0.5), elements]

template <class real>
int64 binary_accuracy_chunks(const BinaryAccuracyArgs<real>&) {
  return 1;
}

template <class real>
void binary_accuracy_run(const BinaryAccuracyArgs<real>& a, const StepContext&, int64) {
  const int64 count = a.rows * a.cols;
  int64 right = 0;
  for (int64 i = 0; i < count; ++i) {
    const bool is_number = a.logits[i] == a.logits[i];
    right += (is_number && (a.logits[i] > real(0)) == (a.target[i] > real(0.5))) ? 1 : 0;
  }
  a.totals[0] += static_cast<double>(right);
  a.totals[1] += static_cast<double>(count);
}

namespace {

// Columns whose sums are kept at hand while rows pass: 4 KB of them, and pieces of rows that are long enough
// for memory to be read in its own order.
constexpr int64 kStatColumns = 128;

// What one element adds to the four sums of its column.
template <class real>
HOTLOOP_INLINE void add_element(real pred, real target_, double& squared, double& absolute, double& sum,
                                double& sum_squared) {
  const double target = static_cast<double>(target_);
  const double error = static_cast<double>(pred) - target;
  squared += error * error;
  absolute += __builtin_fabs(error);
  sum += target;
  sum_squared += target * target;
}

}  // namespace

// totals (1 + 4 * cols) += [rows, then per column: sum (p - t)^2, sum |p - t|, sum t, sum t^2]; chunks of
// columns

template <class real>
int64 regression_stats_chunks(const RegressionStatsArgs<real>& a) {
  return a.cols > 0 ? ceil_div(a.cols, kStatColumns) : 1;
}

template <class real>
void regression_stats_run(const RegressionStatsArgs<real>& a, const StepContext&, int64 chunk) {
  const Range columns = chunk_range(chunk, kStatColumns, a.cols);
  const int64 count = columns.end - columns.begin;
  double squared[kStatColumns], absolute[kStatColumns], sum[kStatColumns], sum_squared[kStatColumns];
  for (int64 c = 0; c < count; ++c) squared[c] = absolute[c] = sum[c] = sum_squared[c] = 0.0;
  if (chunk == 0) a.totals[0] += static_cast<double>(a.rows);
  if (count == 1) {  // the usual regression: sums in registers
    for (int64 at = columns.begin; at < a.rows * a.cols; at += a.cols)
      add_element(a.pred[at], a.target[at], *squared, *absolute, *sum, *sum_squared);
  } else {
    for (int64 row = 0; row < a.rows; ++row) {
      const real* pred = a.pred + row * a.cols + columns.begin;
      const real* target = a.target + row * a.cols + columns.begin;
      for (int64 c = 0; c < count; ++c)
        add_element(pred[c], target[c], squared[c], absolute[c], sum[c], sum_squared[c]);
    }
  }
  double* totals = a.totals + 1 + 4 * columns.begin;
  for (int64 c = 0; c < count; ++c, totals += 4) {
    totals[0] += squared[c];
    totals[1] += absolute[c];
    totals[2] += sum[c];
    totals[3] += sum_squared[c];
  }
}

HOTLOOP_INSTANTIATE(accuracy, AccuracyArgs)
HOTLOOP_INSTANTIATE(top_k_accuracy, TopKAccuracyArgs)
HOTLOOP_INSTANTIATE(binary_accuracy, BinaryAccuracyArgs)
HOTLOOP_INSTANTIATE(regression_stats, RegressionStatsArgs)

}  // namespace hotloop::HOTLOOP_ISA
