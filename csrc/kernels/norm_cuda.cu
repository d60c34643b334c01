// SPDX-License-Identifier: Apache-2.0
// LayerNorm and RMSNorm over the last dimension. Bound by memory. Forward 8 bytes an element: mean, then
// squares of the distances to it, from registers. Back 12, or 16 with a residual; the parameters' gradients
// 8, and both together 12, since blocks that sum columns run beside those that have just read the same 64
// rows. Rows beyond 16384 columns are read again, from the L2 cache where they fit it.
#include "kernels/columns_cuda.h"
#include "kernels/norm_cuda.h"

namespace hotloop::cuda {
namespace {

// y = (x - mean) * rstd * weight + bias;  kRms: mean is 0
template <bool kRms, bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1)
    norm_fwd(LayerNormFwdArgs<float> a, float eps, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  Team<kWide> team(blockIdx.x, a.rows, lanes, scratch);
  const Span<kGroups> span(team, a.cols, quads);
  const int64 begin = team.row * a.cols;
  Row<kGroups> x(span, a.x + begin, 0.0f);
  const Row<kEarlyGroups<kGroups>> weight(span, a.weight, 1.0f), bias(span, a.bias, 0.0f);
  const float cols = static_cast<float>(a.cols);
  float mean = 0.0f, squares = 0.0f;
  if constexpr (!kRms) {
    span.each([&](auto group) {
      float v[4];
      x.get(span, group, v);
      mean += (v[0] + v[1]) + (v[2] + v[3]);
    });
    mean = team.reduce(mean, Sum{}) / cols;
  }
  span.each([&](auto group) {
    float v[4];
    x.get(span, group, v);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float d = v[j] - mean;
      squares = span.has(group, j) ? ::fmaf(d, d, squares) : squares;
    }
  });
  const float rstd = 1.0f / ::sqrtf(team.reduce(squares, Sum{}) / cols + eps);
  if (!team.live) return;
  write_row(span, x, a.y + begin, [&](auto group, float (&v)[4]) {
    float by[4], plus[4];
    weight.get(span, group, by);
    bias.get(span, group, plus);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = ::fmaf((v[j] - mean) * rstd, by[j], plus[j]);
  });
  if (team.me != 0) return;
  if (a.mean != nullptr) a.mean[team.row] = mean;
  if (a.rstd != nullptr) a.rstd[team.row] = rstd;
}

template <bool kRms, bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1) norm_bwd(LayerNormBwdArgs<float> a, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  norm_bwd_rows<kRms, kWide, kGroups>(a, blockIdx.x, lanes, quads, scratch);
}

// dweight (cols) = sum over rows of dy * hat;  dbias (cols) = sum over rows of dy
template <bool kRms>
struct ParamTerms {
  const float *dy, *x, *mean, *rstd;
  int64 cols, column;

  HL_DEVICE void operator()(int64 row, float (&terms)[2]) const {
    const int64 at = row * cols + column;
    terms[1] = dy[at];
    terms[0] = terms[1] * ((x[at] - (kRms ? 0.0f : mean[row])) * rstd[row]);
  }
};

template <bool kRms>
HL_KERNEL HL_BOUNDS(kThreads, 1)
    norm_param_bwd(LayerNormParamBwdArgs<float> a, int width, int64 run_rows, void* workspace) {
  HL_SHARED(float, scratch, [kColumnScratch<2>]);
  const ColumnTile tile(blockIdx.x, width, a.cols);
  float sums[2];
  const ParamTerms<kRms> terms{a.dy, a.x, a.mean, a.rstd, a.cols, tile.column};
  if (!sum_columns(tile, a.rows, run_rows, sums, scratch, workspace, terms) || !tile.first()) return;
  if (a.dweight != nullptr) a.dweight[tile.column] = sums[0];
  if (a.dbias != nullptr) a.dbias[tile.column] = sums[1];
}

// The rows whose sums are one row of `partial`.
constexpr int kPartialRows = 64;

// Of each 64 rows `row_blocks` blocks make dx, and one a tile of columns makes partial.
template <bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1) norm_both_bwd(LayerNormBwdArgs<float> a, float* partial, int lanes,
                                                        bool quads, int row_blocks, int width) {
  HL_SHARED(float, scratch, [kColumnScratch<2>]);
  const unsigned blocks = static_cast<unsigned>(row_blocks + ceil_div(a.cols, width));
  const int64 run = blockIdx.x / blocks, block = blockIdx.x % blocks;
  if (block < row_blocks) {
    a.residual = nullptr;  // as the compiler shall know
    if (kWide && run * row_blocks + block >= a.rows) return;
    norm_bwd_rows<false, kWide, kGroups>(a, run * row_blocks + block, lanes, quads, scratch);
    return;
  }
  const ColumnTile tile(block - row_blocks, width, a.cols);
  const int64 begin = run * kPartialRows;
  float sums[2];
  sum_down(tile, begin, begin + kPartialRows < a.rows ? begin + kPartialRows : a.rows, sums, scratch,
           ParamTerms<false>{a.dy, a.x, a.mean, a.rstd, a.cols, tile.column});
  if (!tile.first()) return;
  HL_UNROLL
  for (int k = 0; k < 2; ++k) partial[(run * 2 + k) * a.cols + tile.column] = sums[k];
}

template <bool kRms>
void launch_fwd(const LayerNormFwdArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  for_row_shape<4>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    launch(stream_of(l), norm_fwd<kRms, kWide, kGroups>, grid.blocks, grid.threads, 0, a, a.eps, grid.lanes,
           in_quads(a.cols, a.y, a.x, a.weight, a.bias));
  });
}

template <bool kRms>
void launch_bwd(const LayerNormBwdArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  for_row_shape<4>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    launch(stream_of(l), norm_bwd<kRms, kWide, kGroups>, grid.blocks, grid.threads, 0, a, grid.lanes,
           norm_bwd_in_quads(a));
  });
}

template <bool kRms>
void launch_param_bwd(const LayerNormParamBwdArgs<float>& a, const Launch& l) {
  if (a.cols == 0) return;
  const ColumnPlan plan = plan_columns(a.rows, a.cols, *l.traits);
  launch(stream_of(l), norm_param_bwd<kRms>, plan.grid(), kThreads, 0, a, plan.width, plan.run_rows,
         l.workspace);
}

// The arguments of RMSNorm as those of LayerNorm without mean and bias.
LayerNormFwdArgs<float> as_layer_norm(const RmsNormFwdArgs<float>& a) {
  return {
      .y = a.y, .rstd = a.rstd, .x = a.x, .weight = a.weight, .rows = a.rows, .cols = a.cols, .eps = a.eps};
}
LayerNormBwdArgs<float> as_layer_norm(const RmsNormBwdArgs<float>& a) {
  return {.dx = a.dx,
          .dy = a.dy,
          .x = a.x,
          .rstd = a.rstd,
          .weight = a.weight,
          .residual = a.residual,
          .rows = a.rows,
          .cols = a.cols};
}
LayerNormParamBwdArgs<float> as_layer_norm(const RmsNormParamBwdArgs<float>& a) {
  return {.dweight = a.dweight, .dy = a.dy, .x = a.x, .rstd = a.rstd, .rows = a.rows, .cols = a.cols};
}

}  // namespace

std::size_t workspace_bytes(const LayerNormParamBwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  return plan_columns(a.rows, a.cols, traits).bytes(2);
}
std::size_t workspace_bytes(const RmsNormParamBwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  return plan_columns(a.rows, a.cols, traits).bytes(2);
}

void layer_norm_fwd_launch(const LayerNormFwdArgs<float>& a, const Launch& l) { launch_fwd<false>(a, l); }
void layer_norm_bwd_launch(const LayerNormBwdArgs<float>& a, const Launch& l) { launch_bwd<false>(a, l); }
void layer_norm_param_bwd_launch(const LayerNormParamBwdArgs<float>& a, const Launch& l) {
  launch_param_bwd<false>(a, l);
}
void rms_norm_fwd_launch(const RmsNormFwdArgs<float>& a, const Launch& l) {
  launch_fwd<true>(as_layer_norm(a), l);
}
void rms_norm_bwd_launch(const RmsNormBwdArgs<float>& a, const Launch& l) {
  launch_bwd<true>(as_layer_norm(a), l);
}
void rms_norm_param_bwd_launch(const RmsNormParamBwdArgs<float>& a, const Launch& l) {
  launch_param_bwd<true>(as_layer_norm(a), l);
}

void layer_norm_both_bwd_launch(const LayerNormBothBwdArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  const LayerNormBwdArgs<float> rows{.dx = a.dx,
                                     .dy = a.dy,
                                     .x = a.x,
                                     .mean = a.mean,
                                     .rstd = a.rstd,
                                     .weight = a.weight,
                                     .rows = a.rows,
                                     .cols = a.cols};
  for_row_shape<4>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    // Blocks of both kinds are of one size, and of rows none may have more than 64.
    int threads = grid.threads;
    if (!kWide && threads > kPartialRows * grid.lanes) threads = kPartialRows * grid.lanes;
    const int row_blocks = kWide ? kPartialRows : kPartialRows * grid.lanes / threads;
    const int width = plan_columns(kPartialRows, a.cols, *l.traits).width;
    const int64 blocks = ceil_div(a.rows, kPartialRows) * (row_blocks + ceil_div(a.cols, width));
    launch(stream_of(l), norm_both_bwd<kWide, kGroups>, static_cast<unsigned>(blocks), threads, 0, rows,
           a.partial, grid.lanes, norm_bwd_in_quads(rows), row_blocks, width);
  });
}

}  // namespace hotloop::cuda
