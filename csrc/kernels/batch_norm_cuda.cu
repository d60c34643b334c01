// SPDX-License-Identifier: Apache-2.0
// BatchNorm over the rows of x (rows, cols). Few rows, or so many columns that every multiprocessor has some:
// one launch, in which a block goes through its columns two or three times and finds them in the cache after
// the first; 8 bytes an element forward, 12 back. Else statistics in one launch and the elements in a second:
// 12 and 20. Variances never come from a difference of squares: see Moments.
#include "kernels/batch_norm_cuda.h"

namespace hotloop::cuda {
namespace {

// --- one launch: a block has all rows of its columns

constexpr int kWholeThreads = 1024;

HL_KERNEL HL_BOUNDS(kWholeThreads, 1) fwd_whole(BatchNormFwdArgs<float> a, FwdSettings s, int width) {
  HL_SHARED(float, scratch, [kColumnScratch<1>]);
  const ColumnTile tile(blockIdx.x, width, a.cols);
  const float rows = a.rows > 0 ? static_cast<float>(a.rows) : 1.0f;
  const float* x = a.x + tile.column;
  Statistics of;
  float sum[1];
  sum_down(tile, 0, a.rows, sum, scratch, [&](int64 row, float (&t)[1]) { t[0] = x[row * a.cols]; });
  of.mean = sum[0] / rows;
  sum_down(tile, 0, a.rows, sum, scratch, [&](int64 row, float (&t)[1]) {
    const float d = x[row * a.cols] - of.mean;
    t[0] = d * d;
  });
  of.variance = sum[0] / rows;
  of.rstd = inverse_root(of.variance, s.eps);
  if (!tile.live) return;
  if (tile.first()) store_statistics(a, s, tile.column, of);
  const Normalise y(of.mean, of.rstd, a.weight, a.bias, tile.column);
  write_down(tile, a.cols, 0, a.rows, a.y, [&](int64 at) { return y(a.x[at]); });
}

HL_KERNEL HL_BOUNDS(kWholeThreads, 1) bwd_whole(BatchNormBwdArgs<float> a, int width) {
  HL_SHARED(float, scratch, [kColumnScratch<2>]);
  const ColumnTile tile(blockIdx.x, width, a.cols);
  float sums[2];
  sum_down(tile, 0, a.rows, sums, scratch, GradientTerms(a, tile));
  if (!tile.live) return;
  if (tile.first() && a.dweight != nullptr) a.dweight[tile.column] = sums[0];
  if (tile.first() && a.dbias != nullptr) a.dbias[tile.column] = sums[1];
  const Gradient dx(a, tile.column, sums[0], sums[1]);
  write_down(tile, a.cols, 0, a.rows, a.dx, [&](int64 at) { return dx(a.x[at], a.dy[at]); });
}

// --- two launches: statistics, then elements

HL_KERNEL HL_BOUNDS(kThreads, 1)
    fwd_statistics(BatchNormFwdArgs<float> a, FwdSettings s, int width, int64 run_rows, void* workspace) {
  HL_SHARED(float, scratch, [kColumnScratch<4>]);
  const ColumnTile tile(blockIdx.x, width, a.cols);
  const int64 begin = blockIdx.y * run_rows, end = begin + run_rows < a.rows ? begin + run_rows : a.rows;
  const float first = tile.live ? a.x[tile.column] : 0.0f;
  const float pivot = first - first == 0.0f ? first : 0.0f;  // NaN and inf are no place to measure from
  float v[4];
  moments_down(tile, a.x + tile.column, a.cols, begin, end, pivot, v, scratch);
  if (gridDim.y > 1) {
    const RunPartials<4> partials(workspace, width);
    if (!partials.last(v)) return;
    ColumnMoments all;
    for (int64 run = tile.slot; run < gridDim.y; run += tile.slots)
      all.join([&](int k) { return partials.at(run, k); });
    all.give(v);
    join_slots(tile, v, scratch, JoinMoments{});
  }
  if (!tile.first()) return;
  const float rows = static_cast<float>(a.rows), variance = v[2] / rows;
  store_statistics(a, s, tile.column, {v[3] / rows, variance, inverse_root(variance, s.eps)});
}

HL_KERNEL HL_BOUNDS(kThreads, 1)
    bwd_sums(BatchNormBwdArgs<float> a, int width, int64 run_rows, float* totals, void* workspace) {
  HL_SHARED(float, scratch, [kColumnScratch<2>]);
  const ColumnTile tile(blockIdx.x, width, a.cols);
  float sums[2];
  if (!sum_columns(tile, a.rows, run_rows, sums, scratch, workspace, GradientTerms(a, tile))) return;
  if (!tile.first()) return;
  HL_UNROLL
  for (int k = 0; k < 2; ++k) totals[k * a.cols + tile.column] = sums[k];
  if (a.dweight != nullptr) a.dweight[tile.column] = sums[0];
  if (a.dbias != nullptr) a.dbias[tile.column] = sums[1];
}

// The elements of a tile of columns in a run of rows. `rstd` is that of `mean`, or absent: `variance` is
// then.
HL_KERNEL HL_BOUNDS(kThreads, 1) normalise(float* y, const float* x, const float* mean, const float* rstd,
                                           const float* variance, const float* weight, const float* bias,
                                           int64 rows, int64 cols, float eps, int width, int64 run_rows) {
  const ColumnTile tile(blockIdx.x, width, cols);
  const int64 begin = blockIdx.y * run_rows, end = begin + run_rows < rows ? begin + run_rows : rows;
  if (!tile.live) return;
  const int64 c = tile.column;
  const Normalise f(mean[c], rstd != nullptr ? rstd[c] : inverse_root(variance[c], eps), weight, bias, c);
  write_down(tile, cols, begin, end, y, [&](int64 at) { return f(x[at]); });
}

HL_KERNEL HL_BOUNDS(kThreads, 1)
    bwd_elements(BatchNormBwdArgs<float> a, const float* totals, int width, int64 run_rows) {
  const ColumnTile tile(blockIdx.x, width, a.cols);
  const int64 begin = blockIdx.y * run_rows, end = begin + run_rows < a.rows ? begin + run_rows : a.rows;
  if (!tile.live) return;
  const Gradient dx(a, tile.column, totals[tile.column], totals[a.cols + tile.column]);
  write_down(tile, a.cols, begin, end, a.dx, [&](int64 at) { return dx(a.x[at], a.dy[at]); });
}

// --- which of them

// One launch where a block's own pass over its rows is no longer than a second launch: 512 rows are 16 a
// thread of the largest block. Or where there are columns enough for all multiprocessors.
constexpr int64 kWholeRows = 512;
// 32 bytes, what memory moves at the least, so that few columns still are several blocks.
constexpr int kWholeColumns = 8;

struct WholePlan {
  int width, threads;
  unsigned tiles;
};

bool takes_whole(int64 rows, int64 cols, const DeviceTraits& traits) {
  return rows <= kWholeRows || ceil_div(cols, kTileColumns) >= 4 * int64{traits.multiprocessors};
}

WholePlan plan_whole(int64 rows, int64 cols, const DeviceTraits& traits) {
  int width = kTileColumns;
  while (width > kWholeColumns && ceil_div(cols, width) < traits.multiprocessors) width /= 2;
  while (width / 2 >= cols) width /= 2;
  constexpr int64 kRowsEach = 4;
  int threads = kWarp;
  while (threads < kWholeThreads && threads * kRowsEach < rows * width) threads *= 2;
  return {width, threads, static_cast<unsigned>(ceil_div(cols, width))};
}

void launch_elements(const BatchNormFwdArgs<float>& a, const Launch& l, const ColumnPlan& plan) {
  launch(stream_of(l), normalise, plan.grid(), kThreads, 0, a.y, a.x, a.mean, a.rstd, nullptr, a.weight,
         a.bias, a.rows, a.cols, a.eps, plan.width, plan.run_rows);
}

}  // namespace

std::size_t workspace_bytes(const BatchNormFwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  return takes_whole(a.rows, a.cols, traits) ? 0 : plan_columns(a.rows, a.cols, traits).bytes(4);
}

// The totals (2, cols) lie behind the partial sums.
std::size_t workspace_bytes(const BatchNormBwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  if (takes_whole(a.rows, a.cols, traits)) return 0;
  return kWorkspaceCounters + plan_columns(a.rows, a.cols, traits).bytes(2) +
         2 * static_cast<std::size_t>(a.cols) * sizeof(float);
}

void batch_norm_fwd_launch(const BatchNormFwdArgs<float>& a, const Launch& l) {
  if (a.cols == 0) return;
  const FwdSettings settings(a);
  if (takes_whole(a.rows, a.cols, *l.traits)) {
    const WholePlan plan = plan_whole(a.rows, a.cols, *l.traits);
    return launch(stream_of(l), fwd_whole, plan.tiles, plan.threads, 0, a, settings, plan.width);
  }
  const ColumnPlan plan = plan_columns(a.rows, a.cols, *l.traits);
  launch(stream_of(l), fwd_statistics, plan.grid(), kThreads, 0, a, settings, plan.width, plan.run_rows,
         l.workspace);
  launch_elements(a, l, plan);
}

void batch_norm_eval_launch(const BatchNormEvalArgs<float>& a, const Launch& l) {
  if (a.rows == 0 || a.cols == 0) return;
  const ColumnPlan plan = plan_columns(a.rows, a.cols, *l.traits);
  launch(stream_of(l), normalise, plan.grid(), kThreads, 0, a.y, a.x, a.running_mean, nullptr, a.running_var,
         a.weight, a.bias, a.rows, a.cols, a.eps, plan.width, plan.run_rows);
}

void batch_norm_bwd_launch(const BatchNormBwdArgs<float>& a, const Launch& l) {
  if (a.cols == 0) return;
  if (takes_whole(a.rows, a.cols, *l.traits)) {
    const WholePlan plan = plan_whole(a.rows, a.cols, *l.traits);
    return launch(stream_of(l), bwd_whole, plan.tiles, plan.threads, 0, a, plan.width);
  }
  const ColumnPlan plan = plan_columns(a.rows, a.cols, *l.traits);
  const std::size_t bytes = plan.bytes(2);
  float* totals =
      reinterpret_cast<float*>(static_cast<char*>(l.workspace) + (bytes > 0 ? bytes : kWorkspaceCounters));
  launch(stream_of(l), bwd_sums, plan.grid(), kThreads, 0, a, plan.width, plan.run_rows, totals, l.workspace);
  launch(stream_of(l), bwd_elements, plan.grid(), kThreads, 0, a, totals, plan.width, plan.run_rows);
}

}  // namespace hotloop::cuda
