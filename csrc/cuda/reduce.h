// SPDX-License-Identifier: Apache-2.0
// Reductions over the lanes of a warp and over a block. Every thread gets the result, and the order is fixed
// by the number of threads alone: a butterfly, in which a commutative operation gives all lanes equal bits.
//
//   warp_reduce(v, op, lanes)          v of `lanes` neighbours, a power of two; each such run its own result
//   block_reduce(v, op, scratch)       v of all threads of a one-dimensional block of 2^k warps; scratch: a
//                                      shared T [kWarp], which may be written again after the next barrier
// Both also take arrays v[K], scratch then being [K * kWarp]. op: Sum, Max, MaxOrNan, or any commutative one.
#pragma once

#include <math.h>

#include "cuda/portable.h"

namespace hotloop::cuda {

struct Sum {
  template <class T>
  HL_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};

// The largest that is not NaN: start from -inf.
struct Max {
  HL_DEVICE float operator()(float a, float b) const { return ::fmaxf(a, b); }
  HL_DEVICE double operator()(double a, double b) const { return ::fmax(a, b); }
};

// The largest, or NaN if there is one.
struct MaxOrNan {
  template <class T>
  HL_DEVICE T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

template <class T, int K, class Op>
HL_DEVICE void warp_reduce(T (&v)[K], Op op, int lanes = kWarp) {
  for (int step = lanes / 2; step > 0; step /= 2) {
    HL_UNROLL
    for (int k = 0; k < K; ++k) v[k] = op(v[k], shfl_xor(v[k], step));
  }
}
template <class T, class Op>
HL_DEVICE T warp_reduce(T v, Op op, int lanes = kWarp) {
  T all[1] = {v};
  warp_reduce(all, op, lanes);
  return all[0];
}

template <class T, int K, class Op>
HL_DEVICE void block_reduce(T (&v)[K], Op op, T* scratch) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  warp_reduce(v, op);
  if (lane_id() == 0) {
    HL_UNROLL
    for (int k = 0; k < K; ++k) scratch[k * kWarp + warp_id()] = v[k];
  }
  sync();
  HL_UNROLL
  for (int k = 0; k < K; ++k) v[k] = scratch[k * kWarp + lane_id() % warps];
  warp_reduce(v, op, warps);
}
template <class T, class Op>
HL_DEVICE T block_reduce(T v, Op op, T* scratch) {
  T all[1] = {v};
  block_reduce(all, op, scratch);
  return all[0];
}

// Of some numbers: how many, their sum, and the sum of squares of their distances to their own mean. Two are
// joined without subtracting squares (Chan, Golub, LeVeque); which one comes first does not matter to a bit.
struct Moments {
  float n = 0.0f, sum = 0.0f, m2 = 0.0f;

  // Of the first `count` of x.
  template <int most>
  static HL_DEVICE Moments of(const float (&x)[most], int count) {
    Moments m;
    HL_UNROLL
    for (int i = 0; i < most; ++i) m.sum += i < count ? x[i] : 0.0f;
    m.n = static_cast<float>(count);
    const float mean = m.sum / m.n;
    HL_UNROLL
    for (int i = 0; i < most; ++i) {
      const float d = x[i] - mean;
      m.m2 += i < count ? d * d : 0.0f;
    }
    return m;
  }
  HL_DEVICE Moments shuffled(int lanes) const {
    Moments other;
    other.n = shfl_xor(n, lanes), other.sum = shfl_xor(sum, lanes), other.m2 = shfl_xor(m2, lanes);
    return other;
  }
};

// m2 = m2_a + m2_b + (mean_a - mean_b)^2 n_a n_b / (n_a + n_b)
HL_DEVICE Moments operator+(const Moments& a, const Moments& b) {
  if (a.n == 0.0f) return b;
  if (b.n == 0.0f) return a;
  Moments all;
  all.n = a.n + b.n;
  all.sum = a.sum + b.sum;
  const float apart = a.sum / a.n - b.sum / b.n;
  all.m2 = ::fmaf(apart * apart, a.n * b.n / all.n, a.m2 + b.m2);
  return all;
}

}  // namespace hotloop::cuda
