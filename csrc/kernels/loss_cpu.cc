// SPDX-License-Identifier: Apache-2.0
// Row weights, the element-wise losses of loss.def, and the batch's loss. Value and gradient of a row come
// from one pass; a single column, the usual regression, is run across the rows instead.
#include "kernels/lanes.h"
#include "kernels/loss.h"

namespace hotloop::HOTLOOP_ISA {

// weight (rows), drow (rows), total (1): one chunk, since the total is needed before the first drow

template <class real>
int64 row_weight_chunks(const RowWeightArgs<real>&) {
  return 1;
}

template <class real>
void row_weight_run(const RowWeightArgs<real>& a, const StepContext&, int64) {
  const bool by_class = a.class_weight != nullptr && a.labels != nullptr;
  if (a.sample_weight == nullptr && !by_class) {  // the usual case: the sum is exact, so no loop is needed
    *a.total = static_cast<double>(a.rows);
    const Vec<real> drow(static_cast<real>(1.0 / *a.total));
    for_lanes<real>(0, a.rows, [&](int64 i, int64 n) HOTLOOP_BODY {
      store(Vec<real>(real(1)), a.weight + i, n);
      store(drow, a.drow + i, n);
    });
    return;
  }
  double total = 0.0;
  for (int64 i = 0; i < a.rows; ++i) {
    const real by_sample = a.sample_weight != nullptr ? a.sample_weight[i] : real(1);
    const real weight = by_class ? by_sample * a.class_weight[a.labels[i]] : by_sample;
    a.weight[i] = weight;
    total += static_cast<double>(weight);
  }
  *a.total = total;
  if (total == 0.0) {
    for (int64 i = 0; i < a.rows; ++i) a.drow[i] = real(0);
    return;
  }
  for (int64 i = 0; i < a.rows; ++i) a.drow[i] = static_cast<real>(static_cast<double>(a.weight[i]) / total);
}

namespace {

// row_loss (1) and dpred (cols) of one row
template <class Functor, class real>
HOTLOOP_INLINE void loss_row(const LossArgs<real>& a, int64 row) {
  const real* pred = a.pred + row * a.cols;
  const real* target = a.target + row * a.cols;
  real* dpred = a.dpred != nullptr ? a.dpred + row * a.cols : nullptr;
  const real drow = a.drow != nullptr ? a.drow[row] : real(1);
  const double cols = static_cast<double>(a.cols);
  const Vec<real> scale(static_cast<real>(static_cast<double>(drow) / cols));
  const Vec<real> p0(static_cast<real>(a.p0));
  double total[1];
  sum_row<real>(a.cols, total, [&](int64 c, int64 n, Vec<real>(&term)[1]) HOTLOOP_BODY {
    const LossTerm<real> l =
        Functor::eval(load(pred + c, n), load(target + c, n), load_or(a.pos_weight, c, n, real(1)), p0);
    if (dpred != nullptr) store(l.slope * scale, dpred + c, n);
    term[0] = first_or(l.value, n, Vec<real>::zero());
  });
  if (a.row_loss != nullptr) a.row_loss[row] = static_cast<real>(total[0] / cols);
}

// The same with cols = 1, for the rows [begin, end).
template <class Functor, class real>
HOTLOOP_INLINE void loss_column(const LossArgs<real>& a, int64 begin, int64 end) {
  const Vec<real> p0(static_cast<real>(a.p0));
  const Vec<real> pos_weight(a.pos_weight != nullptr ? *a.pos_weight : real(1));
  for_lanes<real>(begin, end, [&](int64 row, int64 n) HOTLOOP_BODY {
    const LossTerm<real> l = Functor::eval(load(a.pred + row, n), load(a.target + row, n), pos_weight, p0);
    if (a.row_loss != nullptr) store(l.value, a.row_loss + row, n);
    if (a.dpred == nullptr) return;
    store(a.drow != nullptr ? l.slope * load(a.drow + row, n) : l.slope, a.dpred + row, n);
  });
}

template <class Functor, class real>
void loss_run(const LossArgs<real>& a, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.cols), a.rows);
  if (a.cols == 1) {
    loss_column<Functor>(a, rows.begin, rows.end);
    return;
  }
  for (int64 row = rows.begin; row < rows.end; ++row) loss_row<Functor>(a, row);
}

}  // namespace

// row_loss (rows) = mean over cols of l;  dpred (rows, cols) = drow / cols * l'

#define HOTLOOP_LOSS(name, Functor)                                           \
  template <class real>                                                       \
  int64 name##_chunks(const LossArgs<real>& a) {                              \
    return ceil_div(a.rows, rows_per_chunk(a.cols));                          \
  }                                                                           \
  template <class real>                                                       \
  void name##_run(const LossArgs<real>& a, const StepContext&, int64 chunk) { \
    loss_run<Functor>(a, chunk);                                              \
  }                                                                           \
  HOTLOOP_INSTANTIATE(name, LossArgs)
#include "kernels/loss.def"
#undef HOTLOOP_LOSS

// loss (1) = sum(w l) / sum(w);  totals (2) += [sum(w l), sum(w)]: in double, four sums each, since one
// would wait for every addition

template <class real>
int64 loss_stats_chunks(const LossStatsArgs<real>&) {
  return 1;
}

template <class real>
void loss_stats_run(const LossStatsArgs<real>& a, const StepContext&, int64) {
  double losses[4] = {};
  double totals[4] = {};
  const auto add = [&](int64 i, int64 u) HOTLOOP_BODY {
    const double weight = static_cast<double>(a.weight[i]);
    losses[u] += weight * static_cast<double>(a.row_loss[i]);
    totals[u] += weight;
  };
  int64 i = 0;
  for (; i + 4 <= a.rows; i += 4) {
    for (int64 u = 0; u < 4; ++u) add(i + u, u);
  }
  for (; i < a.rows; ++i) add(i, 0);
  const double weighted = (losses[0] + losses[2]) + (losses[1] + losses[3]);
  const double weights = (totals[0] + totals[2]) + (totals[1] + totals[3]);
  *a.loss = weights != 0.0 ? weighted / weights : 0.0;
  a.totals[0] += weighted;
  a.totals[1] += weights;
}

HOTLOOP_INSTANTIATE(row_weight, RowWeightArgs)
HOTLOOP_INSTANTIATE(loss_stats, LossStatsArgs)

}  // namespace hotloop::HOTLOOP_ISA
