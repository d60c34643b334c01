// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy, value and gradient in one launch: the sums of softmax_cuda.h, then the loss, then
// the gradient from the exponentials that the threads still hold. Bound by memory: 8 bytes a logit up to
// 32768 classes (8192 x 32000: 2.1 GB, 0.63 ms at an H100's 3.35 TB/s), with smoothing up to 16384, and 12
// beyond; with probabilities 4 more, which are read a second time from the cache. Of a row of 32000 a block
// of 1024 threads has 128 KB on their way at once.
#include "kernels/softmax_cuda.h"

namespace hotloop::cuda {
namespace {

enum class Target { kLabel, kSmoothLabel, kProbs };

// q = keep * target + even; `own` is q at the label, rounded once so that a single class has no gradient.
struct Smoothing {
  float keep, even, own;

  Smoothing(double s, int64 cols)
      : keep(static_cast<float>(1.0 - s)),
        even(static_cast<float>(s / static_cast<double>(cols))),
        own(static_cast<float>(1.0 - s + s / static_cast<double>(cols))) {}
};

// Groups that 64 registers have room for: weights take some of those that two groups more would.
template <Target target>
constexpr int kHeld = target == Target::kLabel ? 8 : 4;

// What the sums weigh elements with: q of probabilities; 1 of all classes for what smoothing adds.
template <Target target, int kGroups>
struct ClassWeights {
  const Span<kGroups>& span;
  const float* probs;  // of the row
  Smoothing s;

  template <class Index>
  HL_DEVICE void operator()(Index group, float (&q)[4]) const {
    if constexpr (target == Target::kProbs) span.load(q, probs, group, 0.0f);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) q[j] = target == Target::kProbs ? ::fmaf(s.keep, q[j], s.even) : 1.0f;
  }
};

// The row's sums as those of its q.
template <Target target, bool kWide, int kGroups, class Weights>
HL_DEVICE RowSums weighted_sums(Team<kWide>& team, const Span<kGroups>& span, Row<kGroups>& x,
                                const Weights& weights, const float* logits,
                                typename Span<kGroups>::Index label) {
  if constexpr (target == Target::kProbs) {
    return row_sums<true>(team, span, x, weights);
  } else {
    const float own = label < 0 ? __builtin_nanf("") : logits[label];  // on its way beside the row
    RowSums sums;
    if constexpr (target == Target::kLabel)
      sums = row_sums<true>(team, span, x, Unweighted{});
    else
      sums = row_sums<true>(team, span, x, weights);
    const float below = sums.top - own;
    sums.offset = target == Target::kLabel ? weights.s.keep * below
                                           : ::fmaf(weights.s.even, sums.offset, weights.s.keep * below);
    sums.mass = 1.0f;
    return sums;
  }
}

// row_loss = offset + mass * log(sum);  dlogits = drow * (mass / sum * exp(x - top) - q)
template <Target target, bool kWide, int kGroups>
HL_KERNEL HL_BOUNDS(kTeamBlock<kWide>, 1)
    cross_entropy(CrossEntropyArgs<float> a, Smoothing s, int lanes, bool quads) {
  HL_SHARED(float, scratch, [kTeamScratch<kWide>]);
  Team<kWide> team(blockIdx.x, a.rows, lanes, scratch);
  const Span<kGroups> span(team, a.cols, quads);
  const float* logits = a.logits + team.row * a.cols;
  const float* probs = target == Target::kProbs ? a.probs + team.row * a.cols : nullptr;
  Row<kGroups> x(span, logits, -kInf);
  const ClassWeights<target, kGroups> weights{span, probs, s};
  // A label outside is refused at the border; here it must only do no harm.
  typename Span<kGroups>::Index label = target == Target::kProbs ? 0 : a.labels[team.row];
  if (label >= span.cols) label = -1;
  const float drow = a.drow != nullptr ? a.drow[team.row] : 1.0f;
  const RowSums sums = weighted_sums<target>(team, span, x, weights, logits, label);
  if (!team.live) return;
  if (a.row_loss != nullptr && team.me == 0)
    a.row_loss[team.row] = ::fmaf(sums.mass, ::logf(sums.sum), sums.offset);
  if (a.dlogits == nullptr) return;
  const float scale = drow * sums.mass / sums.sum, own = drow * s.own;
  const float rest = target == Target::kLabel ? 0.0f : drow * s.even;  // without smoothing q is 0 elsewhere
  write_row(span, x, a.dlogits + team.row * a.cols, [&](auto group, float (&v)[4]) {
    [[maybe_unused]] float q[4];
    to_exponentials<kGroups>(v, sums);
    if constexpr (target == Target::kProbs) weights(group, q);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      if constexpr (target == Target::kProbs)
        v[j] = ::fmaf(-drow, q[j], v[j] * scale);
      else
        v[j] = label < 0 ? 0.0f : ::fmaf(v[j], scale, span.column(group, j) == label ? -own : -rest);
    }
  });
}

template <Target target>
void launch_target(const CrossEntropyArgs<float>& a, const Launch& l) {
  for_row_shape<kHeld<target>>(a.rows, a.cols, l, [&]<bool kWide, int kGroups>(const RowGrid& grid) {
    launch(stream_of(l), cross_entropy<target, kWide, kGroups>, grid.blocks, grid.threads, 0, a,
           Smoothing(a.label_smoothing, a.cols), grid.lanes, in_quads(a.cols, a.dlogits, a.logits, a.probs));
  });
}

}  // namespace

void cross_entropy_launch(const CrossEntropyArgs<float>& a, const Launch& l) {
  if (a.rows == 0) return;
  if (a.labels == nullptr)
    launch_target<Target::kProbs>(a, l);
  else if (a.label_smoothing != 0.0)
    launch_target<Target::kSmoothLabel>(a, l);
  else
    launch_target<Target::kLabel>(a, l);
}

}  // namespace hotloop::cuda
