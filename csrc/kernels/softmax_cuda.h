// SPDX-License-Identifier: Apache-2.0
// The sums that softmax, log_softmax and cross-entropy are made of, over a row x shared by a team:
//
//   top = max x, NaN left out      sum = sum exp(x - top)      offset = sum q (top - x)      mass = sum q
//
// A held row is gone through twice in registers. A row that is read anew is read once: each thread keeps the
// sums relative to the largest number it has met and corrects them when that grows. The sum of a row with a
// NaN or +inf, or of nothing but -inf, is NaN, which fills that row and no other.
#pragma once

#include <cfloat>

#include "kernels/rows_cuda.h"

namespace hotloop::cuda {

struct RowSums {
  float top = -kInf, sum = 0.0f, offset = 0.0f, mass = 0.0f;

  // The same relative to a larger top.
  HL_DEVICE void raise(float to) {
    if (to == top) return;
    sum *= ::expf(top - to);
    if (mass != 0.0f) offset = ::fmaf(mass, to - top, offset);  // to - top may be inf
    top = to;
  }
};

// No q.
struct Unweighted {
  template <class Index>
  HL_DEVICE void operator()(Index, float (&)[4]) const {}
};

// Of this thread's part, relative to sums.top; the row keeps exp(x - top) if kExponentials.
template <bool kExponentials, int kGroups, class Weights>
HL_DEVICE void add_held(const Span<kGroups>& span, Row<kGroups>& x, RowSums& sums, Weights weights) {
  span.each([&](int group) {
    float v[4], q[4];
    x.get(span, group, v);
    weights(group, q);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float down = v[j] - sums.top;
      const bool in = span.has(group, j);
      if constexpr (!std::is_same_v<Weights, Unweighted>) {
        sums.offset = in ? ::fmaf(-q[j], down, sums.offset) : sums.offset;
        sums.mass += in ? q[j] : 0.0f;
      }
      v[j] = ::expf(down);
      sums.sum += in ? v[j] : 0.0f;
    }
    if constexpr (kExponentials) x.keep(group, v);
  });
}

// The same for a row that is read once, relative to the largest number it meets; at first, the least one, of
// which -inf is infinitely far, so that it has no part in the sum.
template <class Weights>
HL_DEVICE void add_streamed(const Span<0>& span, const Row<0>& x, RowSums& sums, Weights weights) {
  sums.top = -FLT_MAX;
  span.each([&](int64 group) {
    float v[4], q[4];
    x.get(span, group, v);
    weights(group, q);
    sums.raise(::fmaxf(::fmaxf(::fmaxf(v[0], v[1]), ::fmaxf(v[2], v[3])), sums.top));
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const bool in = span.has(group, j);
      sums.sum += in ? ::expf(v[j] - sums.top) : 0.0f;
      if constexpr (!std::is_same_v<Weights, Unweighted>) {
        sums.offset = in ? ::fmaf(q[j], sums.top - v[j], sums.offset) : sums.offset;
        sums.mass += in ? q[j] : 0.0f;
      }
    }
  });
}

// weights(group, q[4]) gives q. x is -inf past its end.
template <bool kExponentials, bool kWide, int kGroups, class Weights>
HL_DEVICE RowSums row_sums(Team<kWide>& team, const Span<kGroups>& span, Row<kGroups>& x, Weights weights) {
  RowSums sums;
  if constexpr (kGroups > 0) {
    HL_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      HL_UNROLL
      for (int j = 0; j < 4; ++j) sums.top = ::fmaxf(sums.top, x.held[group][j]);
    }
    sums.top = team.reduce(sums.top, Max{});
    add_held<kExponentials>(span, x, sums, weights);
  } else {
    add_streamed(span, x, sums, weights);
    sums.raise(team.reduce(sums.top, Max{}));
  }
  if constexpr (std::is_same_v<Weights, Unweighted>) {
    sums.sum = team.reduce(sums.sum, Sum{});
  } else {
    float all[3] = {sums.sum, sums.offset, sums.mass};
    team.reduce(all, Sum{});
    sums.sum = all[0], sums.offset = all[1], sums.mass = all[2];
  }
  if (sums.sum == 0.0f) sums.sum = __builtin_nanf("");  // no number above -inf: as if relative to that
  return sums;
}

// Where the row kept no exponentials, x becomes them.
template <int kGroups>
HL_DEVICE void to_exponentials(float (&v)[4], const RowSums& sums) {
  if constexpr (kGroups == 0) {
    HL_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = ::expf(v[j] - sums.top);
  }
}

}  // namespace hotloop::cuda
