// SPDX-License-Identifier: Apache-2.0
// softmax and log_softmax over the last dimension, and their gradients. Bound by memory: 8 bytes an element
// forward and 12 back while threads hold their row (32768 and 16384 columns), 12 and 20 beyond, the second
// reading coming from the L2 cache where the rows at work fit it.
#include "kernels/softmax_cuda.h"

namespace hotloop::cuda {
namespace {

// y = exp(x - top) / sum;  log: y = (x - top) - log(sum)
template <bool kLog, bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1) softmax_fwd(SoftmaxFwdArgs<float> a, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  Team<kWide> team(blockIdx.x, a.rows, lanes, scratch);
  const Span<kGroups> span(team, a.cols, quads);
  Row<kGroups> x(span, a.x + team.row * a.cols, -kInf);
  const RowSums sums = row_sums<!kLog>(team, span, x, Unweighted{});
  const float by = kLog ? ::logf(sums.sum) : 1.0f / sums.sum;
  if (!team.live) return;
  write_row(span, x, a.y + team.row * a.cols, [&](auto, float (&v)[4]) {
    if constexpr (!kLog) to_exponentials<kGroups>(v, sums);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = kLog ? (v[j] - sums.top) - by : v[j] * by;
  });
}

// dx = y * (dy - sum(dy * y));  log: dx = dy - exp(y) * sum(dy)
template <bool kLog, bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1) softmax_bwd(SoftmaxBwdArgs<float> a, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  Team<kWide> team(blockIdx.x, a.rows, lanes, scratch);
  const Span<kGroups> span(team, a.cols, quads);
  Row<kGroups> dy(span, a.dy + team.row * a.cols, 0.0f);
  const Row<kGroups> y(span, a.y + team.row * a.cols, 0.0f);
  float dot = 0.0f;
  span.each([&](auto group) {
    float d[4], v[4];
    dy.get(span, group, d);
    if constexpr (!kLog) y.get(span, group, v);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) dot = kLog ? dot + d[j] : ::fmaf(d[j], v[j], dot);
  });
  dot = team.reduce(dot, Sum{});
  if (!team.live) return;
  write_row(span, dy, a.dx + team.row * a.cols, [&](auto group, float (&d)[4]) {
    float v[4];
    y.get(span, group, v);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) d[j] = kLog ? ::fmaf(-::expf(v[j]), dot, d[j]) : v[j] * (d[j] - dot);
  });
}

template <bool kLog>
void launch_fwd(const SoftmaxFwdArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  for_row_shape<8>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    launch(stream_of(l), softmax_fwd<kLog, kWide, kGroups>, grid.blocks, grid.threads, 0, a, grid.lanes,
           in_quads(a.cols, a.y, a.x));
  });
}

template <bool kLog>
void launch_bwd(const SoftmaxBwdArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  for_row_shape<4>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    launch(stream_of(l), softmax_bwd<kLog, kWide, kGroups>, grid.blocks, grid.threads, 0, a, grid.lanes,
           in_quads(a.cols, a.dx, a.dy, a.y));
  });
}

}  // namespace

void softmax_fwd_launch(const SoftmaxFwdArgs<float>& a, const Launch& l) { launch_fwd<false>(a, l); }
void log_softmax_fwd_launch(const SoftmaxFwdArgs<float>& a, const Launch& l) { launch_fwd<true>(a, l); }
void softmax_bwd_launch(const SoftmaxBwdArgs<float>& a, const Launch& l) { launch_bwd<false>(a, l); }
void log_softmax_bwd_launch(const SoftmaxBwdArgs<float>& a, const Launch& l) { launch_bwd<true>(a, l); }

}  // namespace hotloop::cuda
