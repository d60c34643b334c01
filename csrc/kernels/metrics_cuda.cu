// SPDX-License-Identifier: Apache-2.0
// Row weights, the batch's loss, and metrics of an epoch: each batch adds to totals in double, in an order
// that follows from its size. One launch each, at the memory bound: what blocks have counted is joined by the
// last of them to finish.
#include <math.h>

#include "cuda/reduce.h"
#include "kernels/reduce_cuda.h"

namespace hotloop::cuda {
namespace {

// One column whose rows all blocks share.
Cut cut_rows(int64 rows, const DeviceTraits& traits) { return cut_reduction(1, rows, 1, traits); }

struct Pair {
  double first, second;
};
HL_DEVICE Pair join_pairs(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }

// --- weight (rows), drow (rows), total (1)

HL_KERNEL equal_weights(float* weight, float* drow, double* total, int64 rows) {
  const int64 first = int64{blockIdx.x} * blockDim.x + threadIdx.x;
  const float share = static_cast<float>(1.0 / static_cast<double>(rows));
  for (int64 i = first; i < rows; i += int64{gridDim.x} * blockDim.x) {
    weight[i] = 1.0f;
    drow[i] = share;
  }
  if (first == 0) *total = static_cast<double>(rows);
}

HL_KERNEL weigh_rows(float* weight, double* total, const float* by_sample, const float* by_class,
                     const index* labels, Cut cut, void* workspace) {
  const Place at(cut);
  double sum = 0.0;
  for (int64 i = at.begin + at.lane; i < at.end; i += cut.lanes) {
    float w = by_sample != nullptr ? by_sample[i] : 1.0f;
    if (by_class != nullptr) w *= by_class[labels[i]];
    weight[i] = w;
    sum += static_cast<double>(w);
  }
  if (join_all(sum, 0.0, cut, at, workspace, Sum{})) *total = sum;
}

HL_KERNEL share_rows(float* drow, const float* weight, const double* total, int64 rows) {
  const double all = *total;
  for (int64 i = int64{blockIdx.x} * blockDim.x + threadIdx.x; i < rows; i += int64{gridDim.x} * blockDim.x)
    drow[i] = all == 0.0 ? 0.0f : static_cast<float>(static_cast<double>(weight[i]) / all);
}

// --- loss (1) = sum(w l) / sum(w);  totals (2) += [sum(w l), sum(w)]

HL_KERNEL sum_losses(double* loss, double* totals, const float* row_loss, const float* weight, Cut cut,
                     void* workspace) {
  const Place at(cut);
  Pair sum{0.0, 0.0};
  for (int64 i = at.begin + at.lane; i < at.end; i += cut.lanes) {
    const double w = static_cast<double>(weight[i]);
    sum = join_pairs(sum, {w * static_cast<double>(row_loss[i]), w});
  }
  if (!join_all(sum, Pair{0.0, 0.0}, cut, at, workspace, join_pairs)) return;
  *loss = sum.second != 0.0 ? sum.first / sum.second : 0.0;
  totals[0] += sum.first;
  totals[1] += sum.second;
}

// --- totals (2) += [rows that are right, rows]: neighbouring lanes, a power of two of them, read a row

// The first of the largest of a row (cols) of probabilities; NaN is none, except that a row that begins with
// one gives 0. `lane` is -1 for a row that does not exist.
HL_DEVICE index first_largest(const float* x, int64 cols, int lane, int lanes) {
  float best = -INFINITY;
  index place = static_cast<index>(cols);
  if (lane == 0 && x[0] != x[0]) best = INFINITY, place = 0;
  for (int64 c = lane; lane >= 0 && c < cols; c += lanes) {
    if (x[c] > best || (x[c] == best && c < place)) best = x[c], place = static_cast<index>(c);
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    const float other = shfl_xor(best, half);
    const index other_place = shfl_xor(place, half);
    if (other > best || (other == best && other_place < place)) best = other, place = other_place;
  }
  return place < cols ? place : 0;
}

// How many columns stand before the label's in descending order; -1 if the label has no place in it. Equal
// logits stand by their index; what does not compare, a NaN, stands before.
HL_DEVICE int standing(const float* x, int64 label, int64 cols, int lane, int lanes) {
  const bool exists = lane >= 0 && label >= 0 && label < cols;
  const float chosen = exists ? x[label] : NAN;
  int before = 0;
  for (int64 c = lane; exists && c < cols; c += lanes) {
    if (c != label) before += (c < label ? x[c] < chosen : x[c] <= chosen) ? 0 : 1;
  }
  before = warp_reduce(before, Sum{}, lanes);
  return chosen == chosen ? before : -1;
}

HL_KERNEL count_right(double* totals, const float* logits, const index* labels, const float* probs,
                      int64 rows, int64 cols, int64 top, int lanes, Cut cut, void* workspace) {
  const Place at(cut);
  const int64 per_block = kThreads / lanes, last = ceil_div(rows, per_block) * per_block;
  double right = 0.0;
  for (int64 row = blockIdx.x * per_block + threadIdx.x / lanes; row < last; row += gridDim.x * per_block) {
    const int lane = row < rows ? static_cast<int>(threadIdx.x) % lanes : -1;
    int64 label = -1;
    if (probs != nullptr)
      label = first_largest(probs + row * cols, cols, lane, lanes);
    else if (lane >= 0)
      label = labels[row];
    const int before = standing(logits + row * cols, label, cols, lane, lanes);
    if (lane == 0 && before >= 0 && before < top) right += 1.0;
  }
  if (!join_all(right, 0.0, cut, at, workspace, Sum{})) return;
  totals[0] += right;
  totals[1] += static_cast<double>(rows);
}

// A cut whose parts are the blocks' own counts, whatever rows they took.
Cut cut_blocks(int64 rows, int lanes, const DeviceTraits& traits) {
  Cut cut{1, 1, 1, 1, kThreads, 1, 1, 1, 1};
  const int64 wanted = ceil_div(rows, kThreads / lanes);
  const int64 most = int64{traits.multiprocessors} * kBlocksPerProcessor;
  cut.runs = wanted < 1 ? 1 : wanted < most ? wanted : most;
  return cut;
}

int lanes_for(int64 cols) { return power_of_two(ceil_div(cols, 2), kWarp); }

void launch_count(double* totals, const float* logits, const index* labels, const float* probs, int64 rows,
                  int64 cols, int64 top, const Launch& l) {
  const int lanes = lanes_for(cols);
  const Cut cut = cut_blocks(rows, lanes, *l.traits);
  launch(stream_of(l), count_right, cut.blocks(), kThreads, 0, totals, logits, labels, probs, rows, cols, top,
         lanes, cut, l.workspace);
}

// --- totals (2) += [elements where (logit > 0) == (target > 0.5), elements]

HL_KERNEL count_agreeing(double* totals, const float* logits, const float* target, Cut cut, void* workspace) {
  const Place at(cut);
  double right = 0.0;
  for (int64 i = at.begin + at.lane; i < at.end; i += cut.lanes) {
    const float x = logits[i];
    if (x == x && (x > 0.0f) == (target[i] > 0.5f)) right += 1.0;
  }
  if (!join_all(right, 0.0, cut, at, workspace, Sum{})) return;
  totals[0] += right;
  totals[1] += static_cast<double>(cut.reduce);
}

// --- totals (1 + 4 * cols) += [rows, then per column: sum (p - t)^2, sum |p - t|, sum t, sum t^2]

struct Residuals {
  double squared, absolute, target, target_squared;
};
HL_DEVICE Residuals join_residuals(Residuals a, Residuals b) {
  return {a.squared + b.squared, a.absolute + b.absolute, a.target + b.target,
          a.target_squared + b.target_squared};
}

HL_KERNEL sum_residuals(double* totals, const float* pred, const float* target, Cut cut, void* workspace) {
  const Place at(cut);
  Residuals sum{0.0, 0.0, 0.0, 0.0};
  for (int64 row = at.begin + at.lane; row < at.end; row += cut.lanes) {
    const int64 i = row * cut.inner + at.column;
    const double t = static_cast<double>(target[i]), error = static_cast<double>(pred[i]) - t;
    sum = join_residuals(sum, {error * error, error < 0.0 ? -error : error, t, t * t});
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) totals[0] += static_cast<double>(cut.reduce);
  if (!join_all(sum, Residuals{0.0, 0.0, 0.0, 0.0}, cut, at, workspace, join_residuals)) return;
  double* of_column = totals + 1 + 4 * at.column;
  of_column[0] += sum.squared;
  of_column[1] += sum.absolute;
  of_column[2] += sum.target;
  of_column[3] += sum.target_squared;
}

}  // namespace

std::size_t workspace_bytes(const RowWeightArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_rows(a.rows, traits), sizeof(double));
}
std::size_t workspace_bytes(const LossStatsArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_rows(a.rows, traits), sizeof(Pair));
}
std::size_t workspace_bytes(const AccuracyArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_blocks(a.rows, lanes_for(a.cols), traits), sizeof(double));
}
std::size_t workspace_bytes(const TopKAccuracyArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_blocks(a.rows, lanes_for(a.cols), traits), sizeof(double));
}
std::size_t workspace_bytes(const BinaryAccuracyArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_rows(a.rows * a.cols, traits), sizeof(double));
}
std::size_t workspace_bytes(const RegressionStatsArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_reduction(1, a.rows, a.cols, traits), sizeof(Residuals));
}

void row_weight_launch(const RowWeightArgs<float>& a, const Launch& l) {
  const bool by_class = a.class_weight != nullptr && a.labels != nullptr;
  if (a.sample_weight == nullptr && !by_class) {  // the usual case: the sum is exact
    launch(stream_of(l), equal_weights, grid_for(a.rows, l), kThreads, 0, a.weight, a.drow, a.total, a.rows);
    return;
  }
  const Cut cut = cut_rows(a.rows, *l.traits);
  launch(stream_of(l), weigh_rows, cut.blocks(), kThreads, 0, a.weight, a.total, a.sample_weight,
         by_class ? a.class_weight : nullptr, a.labels, cut, l.workspace);
  if (a.rows > 0)
    launch(stream_of(l), share_rows, grid_for(a.rows, l), kThreads, 0, a.drow, a.weight, a.total, a.rows);
}

void loss_stats_launch(const LossStatsArgs<float>& a, const Launch& l) {
  const Cut cut = cut_rows(a.rows, *l.traits);
  launch(stream_of(l), sum_losses, cut.blocks(), kThreads, 0, a.loss, a.totals, a.row_loss, a.weight, cut,
         l.workspace);
}

void accuracy_launch(const AccuracyArgs<float>& a, const Launch& l) {
  launch_count(a.totals, a.logits, a.labels, a.labels != nullptr ? nullptr : a.probs, a.rows, a.cols, 1, l);
}

void top_k_accuracy_launch(const TopKAccuracyArgs<float>& a, const Launch& l) {
  launch_count(a.totals, a.logits, a.labels, nullptr, a.rows, a.cols, a.top_k, l);
}

void binary_accuracy_launch(const BinaryAccuracyArgs<float>& a, const Launch& l) {
  const Cut cut = cut_rows(a.rows * a.cols, *l.traits);
  launch(stream_of(l), count_agreeing, cut.blocks(), kThreads, 0, a.totals, a.logits, a.target, cut,
         l.workspace);
}

void regression_stats_launch(const RegressionStatsArgs<float>& a, const Launch& l) {
  const Cut cut = cut_reduction(1, a.rows, a.cols, *l.traits);
  if (a.cols == 0) return;
  launch(stream_of(l), sum_residuals, cut.blocks(), kThreads, 0, a.totals, a.pred, a.target, cut,
         l.workspace);
}

}  // namespace hotloop::cuda
