// SPDX-License-Identifier: Apache-2.0
// BatchNorm of one column, as a thread sees it: its statistics and their gradient terms, its moments in one
// reading, and the loops that write its elements. batch_norm_cuda.cu says which blocks do what.
#pragma once

#include "kernels/columns_cuda.h"

namespace hotloop::cuda {

// mean, variance (cols) of a column, with what is made of them.
struct Statistics {
  float mean, variance, rstd;
};

HL_DEVICE float inverse_root(float variance, float eps) { return 1.0f / ::sqrtf(variance + eps); }

// Attributes in float, as reals are here.
struct FwdSettings {
  float eps, keep, momentum, unbias;

  explicit FwdSettings(const BatchNormFwdArgs<float>& a)
      : eps(static_cast<float>(a.eps)),
        keep(static_cast<float>(1.0 - a.momentum)),
        momentum(static_cast<float>(a.momentum)),
        unbias(static_cast<float>(a.rows > 1 ? static_cast<double>(a.rows) / static_cast<double>(a.rows - 1)
                                             : 1.0)) {}
};

// running = (1 - momentum) * running + momentum * batch, unless nothing was seen
HL_DEVICE void store_statistics(const BatchNormFwdArgs<float>& a, const FwdSettings& s, int64 c,
                                const Statistics& of) {
  a.mean[c] = of.mean;
  a.rstd[c] = of.rstd;
  if (a.rows == 0) return;
  if (a.running_mean != nullptr) a.running_mean[c] = ::fmaf(s.keep, a.running_mean[c], s.momentum * of.mean);
  if (a.running_var != nullptr)
    a.running_var[c] = ::fmaf(s.keep, a.running_var[c], s.momentum * (of.variance * s.unbias));
}

// y of a column: (x - mean) * rstd * weight + bias
struct Normalise {
  float mean, rstd, weight, bias;

  HL_DEVICE Normalise(float center, float scale, const float* w, const float* b, int64 c)
      : mean(center), rstd(scale), weight(w != nullptr ? w[c] : 1.0f), bias(b != nullptr ? b[c] : 0.0f) {}
  HL_DEVICE float operator()(float x) const { return ::fmaf((x - mean) * rstd, weight, bias); }
};

// dx of a column: weight * rstd * (dy - sum(dy) / rows - hat * sum(dy * hat) / rows)
struct Gradient {
  float mean, rstd, scale, mean_dyh, mean_dy;

  HL_DEVICE Gradient(const BatchNormBwdArgs<float>& a, int64 c, float sum_dyh, float sum_dy)
      : mean(a.mean[c]),
        rstd(a.rstd[c]),
        scale((a.weight != nullptr ? a.weight[c] : 1.0f) * rstd),
        mean_dyh(sum_dyh / static_cast<float>(a.rows)),
        mean_dy(sum_dy / static_cast<float>(a.rows)) {}
  HL_DEVICE float operator()(float x, float dy) const {
    return scale * ::fmaf(-((x - mean) * rstd), mean_dyh, dy - mean_dy);
  }
};

// The terms of dweight and dbias.
struct GradientTerms {
  const float *dy, *x;
  float mean, rstd;
  int64 cols, column;

  HL_DEVICE GradientTerms(const BatchNormBwdArgs<float>& a, const ColumnTile& tile)
      : dy(a.dy),
        x(a.x),
        mean(tile.live ? a.mean[tile.column] : 0.0f),
        rstd(tile.live ? a.rstd[tile.column] : 0.0f),
        cols(a.cols),
        column(tile.column) {}
  HL_DEVICE void operator()(int64 row, float (&terms)[2]) const {
    const int64 at = row * cols + column;
    terms[1] = dy[at];
    terms[0] = terms[1] * ((x[at] - mean) * rstd);
  }
};

// out[at] = f(at) for this thread's elements of its column in the rows [begin, end). Several are read before
// the first is written, for the compiler cannot know that out is none of what f reads.
template <class F>
HL_DEVICE void write_down(const ColumnTile& tile, int64 cols, int64 begin, int64 end, float* out, F f) {
  if (!tile.live) return;
  int64 row = begin + tile.slot;
  const int64 step = tile.slots * cols;
  for (; row + int64{kRowsAhead - 1} * tile.slots < end; row += int64{kRowsAhead} * tile.slots) {
    const int64 at = row * cols + tile.column;
    float v[kRowsAhead];
    HL_UNROLL
    for (int u = 0; u < kRowsAhead; ++u) v[u] = f(at + u * step);
    HL_UNROLL
    for (int u = 0; u < kRowsAhead; ++u) out[at + u * step] = v[u];
  }
  for (; row < end; row += tile.slots) out[row * cols + tile.column] = f(row * cols + tile.column);
}

// Rows whose own mean and squares a thread forms in registers before they join what it has.
constexpr int kMomentRows = 8;

// Of a column: moments of x - pivot, and the sum of x itself, of which the mean is made: were the pivot far
// from a mean near 0, that of the distances would lose its last bits.
struct ColumnMoments {
  Moments apart;
  float sum = 0.0f;

  HL_DEVICE void give(float (&v)[4]) const { v[0] = apart.n, v[1] = apart.sum, v[2] = apart.m2, v[3] = sum; }
  template <class Other>
  HL_DEVICE void join(Other other) {
    apart = apart + Moments{other(0), other(1), other(2)};
    sum += other(3);
  }
};

// Groups of kMomentRows rows join with one division each, where any two moments take three: `inverse` is 1 /
// n.
class GroupMoments {
 public:
  HL_DEVICE void add(float (&x)[kMomentRows], float pivot) {
    constexpr float kCount = kMomentRows;
    float total = 0.0f, m2 = 0.0f;
    HL_UNROLL
    for (int u = 0; u < kMomentRows; ++u) {
      all_.sum += x[u];
      x[u] -= pivot;
      total += x[u];
    }
    const float mean = total * (1.0f / kCount);
    HL_UNROLL
    for (int u = 0; u < kMomentRows; ++u) m2 = ::fmaf(x[u] - mean, x[u] - mean, m2);
    Moments& a = all_.apart;
    const float between = a.n > 0.0f ? ::fmaf(a.sum, inverse_, -mean) : 0.0f, n = a.n + kCount;
    inverse_ = 1.0f / n;
    a.m2 = ::fmaf(between * between, a.n * kCount * inverse_, a.m2 + m2);
    a.sum += total;
    a.n = n;
  }
  HL_DEVICE const ColumnMoments& all() const { return all_; }

 private:
  ColumnMoments all_;
  float inverse_ = 0.0f;
};

struct JoinMoments {
  template <class Other>
  HL_DEVICE void operator()(float (&v)[4], Other other) const {
    ColumnMoments all{{v[0], v[1], v[2]}, v[3]};
    all.join(other);
    all.give(v);
  }
};

// The moments of the rows [begin, end) of a column x, for all threads of the column. The pivot, an element of
// the column, keeps the distances of a column far from 0 short.
HL_DEVICE void moments_down(const ColumnTile& tile, const float* x, int64 cols, int64 begin, int64 end,
                            float pivot, float (&v)[4], float* scratch) {
  GroupMoments groups;
  const int64 step = tile.slots * cols;
  int64 row = begin + tile.slot;
  if (!tile.live) row = end;
  const float* from = x + row * cols;
  for (; row + int64{kMomentRows - 1} * tile.slots < end; row += int64{kMomentRows} * tile.slots) {
    float of[kMomentRows];
    HL_UNROLL
    for (int u = 0; u < kMomentRows; ++u, from += step) of[u] = *from;
    groups.add(of, pivot);
  }
  ColumnMoments all = groups.all();
  for (; row < end; row += tile.slots, from += step) {
    all.apart = all.apart + Moments{1.0f, *from - pivot, 0.0f};
    all.sum += *from;
  }
  all.give(v);
  join_slots(tile, v, scratch, JoinMoments{});
}

}  // namespace hotloop::cuda
