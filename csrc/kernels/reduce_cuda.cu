// SPDX-License-Identifier: Apache-2.0
// Sum, mean and maximum over the middle of x (outer, reduce, inner), and the maximum's gradient. Bound by
// memory: 4 bytes an element, for the gradient 8 if the matrix stays in cache between its two looks.
#include "cuda/reduce.h"
#include "kernels/reduce_cuda.h"

namespace hotloop::cuda {
namespace {

// Part: what is known of some elements of one output. Four elements are joined in float before they count in
// double, whose additions are few on most devices.
struct Total {
  using Part = double;
  double divisor;
  HL_DEVICE static Part none() { return 0.0; }
  HL_DEVICE static Part of(float a, float b, float c, float d) {
    return static_cast<double>((a + b) + (c + d));
  }
  HL_DEVICE static Part of(float a) { return static_cast<double>(a); }
  HL_DEVICE static Part join(Part a, Part b) { return a + b; }
  HL_DEVICE float result(Part p) const { return static_cast<float>(p / divisor); }
};

struct Largest {
  using Part = float;
  HL_DEVICE static Part none() { return -INFINITY; }
  HL_DEVICE static Part join(Part a, Part b) { return MaxOrNan()(a, b); }
  HL_DEVICE static Part of(float a, float b, float c, float d) { return join(join(a, b), join(c, d)); }
  HL_DEVICE static Part of(float a) { return a; }
  HL_DEVICE float result(Part p) const { return p; }
};

// out (outer, inner) = result of x (outer, reduce, inner)
template <class Op>
HL_KERNEL HL_BOUNDS(kThreads, 4) reduce_rows(float* out, const float* x, Op op, Cut cut, void* workspace) {
  const Place at(cut);
  const float* from = x + at.o * cut.reduce * cut.inner + at.column;
  const int64 step = cut.lanes * cut.inner;
  typename Op::Part part = Op::none();
  int64 row = at.begin + at.lane;
  for (; row + 3 * cut.lanes < at.end; row += 4 * cut.lanes) {
    const float* p = from + row * cut.inner;
    part = Op::join(part, Op::of(p[0], p[step], p[2 * step], p[3 * step]));
  }
  for (; row < at.end; row += cut.lanes) part = Op::join(part, Op::of(from[row * cut.inner]));
  const auto join = [](typename Op::Part a, typename Op::Part b) { return Op::join(a, b); };
  if (join_all(part, Op::none(), cut, at, workspace, join))
    out[at.o * cut.inner + at.column] = op.result(part);
}

// dx = dout / (number of ties) where x == out, else 0
HL_KERNEL HL_BOUNDS(kThreads, 4)
    max_gradient(float* dx, const float* dout, const float* x, const float* out, Cut cut) {
  HL_SHARED(float, shares, [kThreads]);
  const Place at(cut);
  const int64 first = at.o * cut.reduce * cut.inner + at.column, output = at.o * cut.inner + at.column;
  const float largest = at.exists ? out[output] : 0.0f;
  int ties = 0;
  for (int64 row = at.begin + at.lane; row < at.end; row += cut.lanes)
    ties += x[first + row * cut.inner] == largest ? 1 : 0;
  join_lanes(ties, cut, at.lane, Sum{});
  if (at.lane == 0 && at.exists) shares[at.slot] = dout[output] / static_cast<float>(ties);
  sync();
  if (!at.exists) return;
  const float share = shares[at.slot];
  for (int64 row = at.begin + at.lane; row < at.end; row += cut.lanes) {
    const int64 i = first + row * cut.inner;
    dx[i] = x[i] == largest ? share : 0.0f;
  }
}

template <class Op>
void launch_reduction(float* out, const float* x, const Op& op, const Cut& cut, const Launch& l) {
  if (cut.outer * cut.inner == 0) return;
  launch(stream_of(l), reduce_rows<Op>, cut.blocks(), kThreads, 0, out, x, op, cut, l.workspace);
}

}  // namespace

std::size_t workspace_bytes(const ReduceSumArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_reduction(a.outer, a.reduce, a.inner, traits), sizeof(Total::Part));
}

std::size_t workspace_bytes(const ReduceMaxFwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  return parts_bytes(cut_reduction(a.outer, a.reduce, a.inner, traits), sizeof(Largest::Part));
}

void reduce_sum_launch(const ReduceSumArgs<float>& a, const Launch& l) {
  const double divisor = a.mean != 0 ? static_cast<double>(a.reduce) : 1.0;
  launch_reduction(a.out, a.x, Total{divisor}, cut_reduction(a.outer, a.reduce, a.inner, *l.traits), l);
}

void reduce_max_fwd_launch(const ReduceMaxFwdArgs<float>& a, const Launch& l) {
  launch_reduction(a.out, a.x, Largest{}, cut_reduction(a.outer, a.reduce, a.inner, *l.traits), l);
}

void reduce_max_bwd_launch(const ReduceMaxBwdArgs<float>& a, const Launch& l) {
  if (a.outer * a.reduce * a.inner == 0) return;
  const Cut cut = cut_reduction(a.outer, a.reduce, a.inner, *l.traits, false);
  launch(stream_of(l), max_gradient, cut.blocks(), kThreads, 0, a.dx, a.dout, a.x, a.out, cut);
}

void add_tables(float* out, const float* parts, int64 tables, int64 elements, const Launch& l) {
  launch_reduction(out, parts, Total{1.0}, cut_reduction(1, tables, elements, *l.traits, false), l);
}

}  // namespace hotloop::cuda
