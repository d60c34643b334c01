// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of few classes, a vector of rows at a time: see short_rows.h. A few such groups go through
// each stage together, since every stage of one group waits for the stage before. The label's column is
// found by comparing, so that a label is never followed out of its row.
#pragma once

#include "kernels/short_rows.h"
#include "kernels/vec_math.h"

namespace hotloop::HOTLOOP_ISA {

enum class Target { kLabel, kSmoothLabel, kProbs };

// Four chains of additions keep both adders busy, and their columns stay in the L1 cache.
constexpr int kShortGroups = 4;

// q = keep * target + even; `own` is q at the label, rounded once so that a single class has no gradient.
template <class real>
struct Smoothing {
  Vec<real> keep, even, own;

  Smoothing(double s, int64 cols)
      : keep(static_cast<real>(1.0 - s)),
        even(static_cast<real>(s / static_cast<double>(cols))),
        own(static_cast<real>(1.0 - s + s / static_cast<double>(cols))) {}
};

// labels (count) as reals, exact where they are a column's number; -1 in the lanes beyond.
template <class real>
HOTLOOP_INLINE Vec<real> label_values(const index* labels, int64 count) {
  constexpr int64 width = Vec<real>::width;
  real values[width];
  if (count == width) {  // apart, for the compiler: the loop is one conversion, and the load need not wait
    for (int64 i = 0; i < width; ++i) values[i] = static_cast<real>(labels[i]);
  } else {
    for (int64 i = 0; i < width; ++i) values[i] = i < count ? static_cast<real>(labels[i]) : real(-1);
  }
  return Vec<real>::load(values);
}

// Width rows on their way: row_loss = offset + mass * log(sum_exp), offset = sum q (max - x), mass = sum q,
// dlogits = drow * (mass / sum_exp * e - q), e = exp(x - max), q = keep * target + even.
template <Target target, class real>
struct ShortGroup {
  using V = Vec<real>;
  ShortRows<real> x;  // becomes e, then the gradient
  V top, label, sum_exp, offset, mass;

  // room: elements from row `begin` to the end of the rows in hand.
  HOTLOOP_INLINE void read(const CrossEntropyArgs<real>& a, int64 begin, int64 count, int64 room) {
    x.load(a.logits + begin * a.cols, count, a.cols, room);
    top = x.largest(a.cols);
    label = target == Target::kProbs ? V::zero() : label_values<real>(a.labels + begin, count);
  }

  HOTLOOP_INLINE void reduce(const CrossEntropyArgs<real>& a, int64 begin, int64 count, int64 room,
                             const Smoothing<real>& s) {
    const V one(real(1));
    V number = V::zero();  // of the column
    V below = V::zero();   // sum (max - x)
    ShortRows<real> q;
    if constexpr (target == Target::kProbs) q.load(a.probs + begin * a.cols, count, a.cols, room);
    offset = V::zero();
    mass = target == Target::kProbs ? V::zero() : one;
    sum_exp = sum_short<real>(a.cols, [&](int64 c) HOTLOOP_BODY {
      const V down = x.column[c] - top;
      if constexpr (target == Target::kProbs) {
        const V weight = fma(s.keep, q.column[c], s.even);
        offset = fnma(weight, down, offset);
        mass = mass + weight;
      } else {
        offset = select(label == number, -down, offset);
        number = number + one;
        if constexpr (target == Target::kSmoothLabel) below = below - down;
      }
      x.column[c] = exp(down);
      return x.column[c];
    });
    if constexpr (target == Target::kSmoothLabel) offset = fma(s.even, below, s.keep * offset);
  }

  // A label outside is refused at the border; here it must only do no harm.
  HOTLOOP_INLINE Mask<real> valid(int64 cols) const {
    return (V::zero() <= label) & (label < V(static_cast<real>(cols)));
  }

  HOTLOOP_INLINE void store_loss(const CrossEntropyArgs<real>& a, int64 begin, int64 count) const {
    const V loss = fma(mass, log(sum_exp), offset);
    store(select(valid(a.cols), loss, V(static_cast<real>(__builtin_nan("")))), a.row_loss + begin, count);
  }

  HOTLOOP_INLINE void store_gradient(const CrossEntropyArgs<real>& a, int64 begin, int64 count, int64 room,
                                     const Smoothing<real>& s) {
    const V one(real(1));
    const V drow = load_or(a.drow, begin, count, real(1));
    const V scale = select(valid(a.cols), drow * mass / sum_exp, V::zero());
    const V rest = select(valid(a.cols), drow * s.even, V::zero());
    const V own = drow * s.own;
    if constexpr (target == Target::kProbs) {
      ShortRows<real> q;
      q.load(a.probs + begin * a.cols, count, a.cols, room);
      for (int64 c = 0; c < a.cols; ++c) {
        x.column[c] = fnma(drow, fma(s.keep, q.column[c], s.even), x.column[c] * scale);
      }
    } else {
      V number = V::zero();
      for (int64 c = 0; c < a.cols; ++c, number = number + one) {
        x.column[c] = fma(x.column[c], scale, -select(label == number, own, rest));
      }
    }
    x.store(a.dlogits + begin * a.cols, count, a.cols, room);
  }
};

// The rows [begin, end) for cols <= kShortCols.
template <Target target, class real>
void cross_entropy_short(const CrossEntropyArgs<real>& a, int64 begin, int64 end) {
  using V = Vec<real>;
  const Smoothing<real> s(a.label_smoothing, a.cols);
  ShortGroup<target, real> groups[kShortGroups];
  for (int64 block = begin; block < end; block += kShortGroups * V::width) {
    const auto each = [&](auto&& stage) HOTLOOP_BODY {
      for (int64 g = 0, row = block; g < kShortGroups && row < end; ++g, row += V::width) {
        stage(groups[g], row, end - row < V::width ? end - row : V::width, (end - row) * a.cols);
      }
    };
    each([&](auto& group, int64 row, int64 count, int64 room)
             HOTLOOP_BODY { group.read(a, row, count, room); });
    each([&](auto& group, int64 row, int64 count, int64 room)
             HOTLOOP_BODY { group.reduce(a, row, count, room, s); });
    if (a.row_loss != nullptr) {
      each([&](auto& group, int64 row, int64 count, int64) HOTLOOP_BODY { group.store_loss(a, row, count); });
    }
    if (a.dlogits != nullptr) {
      each([&](auto& group, int64 row, int64 count, int64 room)
               HOTLOOP_BODY { group.store_gradient(a, row, count, room, s); });
    }
  }
}

template <class real>
void cross_entropy_short_rows(const CrossEntropyArgs<real>& a, int64 begin, int64 end) {
  if (a.labels == nullptr) {
    cross_entropy_short<Target::kProbs>(a, begin, end);
  } else if (a.label_smoothing != 0.0) {
    cross_entropy_short<Target::kSmoothLabel>(a, begin, end);
  } else {
    cross_entropy_short<Target::kLabel>(a, begin, end);
  }
}

}  // namespace hotloop::HOTLOOP_ISA
