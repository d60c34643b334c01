// SPDX-License-Identifier: Apache-2.0
// The element-wise losses of loss.def: value and gradient of a row in one pass, a single column across the
// rows. Bound by memory: 12 bytes an element with both outputs.
#include "kernels/kernel_cuda.h"
#include "kernels/loss.h"
#include "kernels/rows_cuda.h"

namespace hotloop::cuda {
namespace {

using V = Vec<float>;

// row_loss (rows) = mean over cols of l;  dpred (rows, cols) = drow / cols * l'
template <class Functor, bool kWide>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1) loss_rows(LossArgs<float> a, float p0, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  Team<kWide> team(blockIdx.x, a.rows, lanes, scratch);
  const Span<0> span(team, a.cols, quads);
  const int64 begin = team.row * a.cols;
  const float cols = static_cast<float>(a.cols);
  const float scale = (a.drow != nullptr ? a.drow[team.row] : 1.0f) / cols;
  float total = 0.0f;
  span.each([&](int64 group) {
    float pred[4], target[4], pos_weight[4], slope[4];
    span.load(pred, a.pred + begin, group, 0.0f);
    span.load(target, a.target + begin, group, 0.0f);
    span.load(pos_weight, a.pos_weight, group, 1.0f);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const LossTerm<float> l = Functor::eval(V(pred[j]), V(target[j]), V(pos_weight[j]), V(p0));
      total += span.has(group, j) ? l.value.v : 0.0f;
      slope[j] = l.slope.v * scale;
    }
    if (a.dpred != nullptr && team.live) span.store(a.dpred + begin, group, slope);
  });
  if (a.row_loss == nullptr) return;
  total = team.reduce(total, Sum{});
  if (team.live && team.me == 0) a.row_loss[team.row] = total / cols;
}

// The same with cols = 1, a thread a row.
template <class Functor>
HL_KERNEL loss_column(LossArgs<float> a, float p0) {
  const V pos_weight(a.pos_weight != nullptr ? *a.pos_weight : 1.0f);
  for (int64 i = int64{blockIdx.x} * blockDim.x + threadIdx.x; i < a.rows;
       i += int64{gridDim.x} * blockDim.x) {
    const LossTerm<float> l = Functor::eval(V(a.pred[i]), V(a.target[i]), pos_weight, V(p0));
    if (a.row_loss != nullptr) a.row_loss[i] = l.value.v;
    if (a.dpred != nullptr) a.dpred[i] = a.drow != nullptr ? l.slope.v * a.drow[i] : l.slope.v;
  }
}

template <class Functor>
void launch_loss(const LossArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  if (a.cols == 1)
    return launch(stream_of(l), loss_column<Functor>, grid_for(a.rows, l), kThreads, 0, a, a.p0);
  // A block's row must give each thread a few groups to be worth its barriers.
  constexpr int64 kLongRow = 4096;
  const bool quads = in_quads(a.cols, a.dpred, a.pred, a.target, a.pos_weight);
  if (a.cols <= kLongRow) {
    const int lanes = power_of_two_from(ceil_div(a.cols, 4));
    const RowGrid grid = narrow_grid(a.rows, lanes < kWarp ? lanes : kWarp, l);
    launch(stream_of(l), loss_rows<Functor, false>, grid.blocks, grid.threads, 0, a, a.p0, grid.lanes, quads);
  } else {
    launch(stream_of(l), loss_rows<Functor, true>, static_cast<unsigned>(a.rows), kThreads, 0, a, a.p0, 0,
           quads);
  }
}

}  // namespace

#define HOTLOOP_LOSS(name, Functor) \
  void name##_launch(const LossArgs<float>& a, const Launch& l) { launch_loss<Functor>(a, l); }
#include "kernels/loss.def"
#undef HOTLOOP_LOSS

}  // namespace hotloop::cuda
