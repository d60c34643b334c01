// SPDX-License-Identifier: Apache-2.0
// The register tile of the matrix product: `rows` x 16 outputs stay in registers while k runs. Per k it
// loads 16 contiguous elements of B and broadcasts one element of A per row. Every output is one chain of
// fma in the order of k, whatever the tile's height, so a row has the same bits in any batch.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// 16 bytes as the compiler's own vector type: two or four lanes on any machine with 128-bit SIMD. The tile of
// the one-lane unit is made of them, because the loop over 16 columns is not vectorised well by itself.
template <class real>
struct Wide {
  static constexpr int64 width = 16 / static_cast<int64>(sizeof(real));
  typedef real Raw __attribute__((vector_size(16)));
  Raw v;

  Wide() = default;
  HOTLOOP_INLINE explicit Wide(real x) {
    for (int64 i = 0; i < width; ++i) v[i] = x;
  }
  static HOTLOOP_INLINE Wide zero() { return Wide(real(0)); }
  static HOTLOOP_INLINE Wide load(const real* p) {
    Wide x;
    __builtin_memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  HOTLOOP_INLINE void store(real* p) const { __builtin_memcpy(p, &v, sizeof v); }
};
template <class real>
HOTLOOP_INLINE Wide<real> fma(Wide<real> a, Wide<real> b, Wide<real> c) {
  Wide<real> x;
  x.v = a.v * b.v + c.v;
  return x;
}

template <class real, bool many_lanes = (Vec<real>::width > 1)>
struct TileLanes {
  using V = Vec<real>;
};
template <class real>
struct TileLanes<real, false> {
  using V = Wide<real>;
};

// 6 x 16 floats are 12 of the 16 AVX2 registers: 12 independent chains cover two FMA units of latency 4,
// and 3 registers are left for B and A. 2 x 16 floats are 8 of the 16 SSE registers.
template <class real>
constexpr int kTileRows = Vec<real>::width > 1 ? 6 : 2;

// One tile's work on one run of k.
template <class real>
struct TileWork {
  const real* a;  // a_ip at a[i*a_stride_m + p*a_stride_k]
  int64 a_stride_m, a_stride_k;
  const real* b;  // b_pj at b[p*b_stride + j], 16 columns always readable
  int64 b_stride;
  int64 k;
  real* out;  // n <= 16 columns are written
  int64 out_stride, n;
  const real* bias;  // (n), or null
  bool add;          // out is added to, not overwritten
};

// sums_ij = a_i0 b_0j + a_i1 b_1j + ...
template <class real, int rows>
HOTLOOP_INLINE void multiply(const TileWork<real>& work, real (&sums)[rows][kPanel]) {
  using V = typename TileLanes<real>::V;
  constexpr int vectors = static_cast<int>(kPanel / V::width);
  V sum[rows][vectors];
  for (auto& row : sum) {
    for (V& s : row) s = V::zero();
  }
  const real* HOTLOOP_RESTRICT a = work.a;
  const real* HOTLOOP_RESTRICT b = work.b;
  const int64 stride_m = work.a_stride_m;
  const int64 stride_k = work.a_stride_k;
  const int64 stride_b = work.b_stride;
#pragma GCC unroll 4
  for (int64 p = work.k; p > 0; --p) {
    V row[vectors];
#pragma GCC unroll 16
    for (int j = 0; j < vectors; ++j) row[j] = V::load(b + j * V::width);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const V scalar(a[i * stride_m]);
#pragma GCC unroll 16
      for (int j = 0; j < vectors; ++j) sum[i][j] = fma(scalar, row[j], sum[i][j]);
    }
    a += stride_k;
    b += stride_b;
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) sum[i][j].store(sums[i] + j * V::width);
  }
}

// out = (add ? out : 0) + sums + bias
template <class real, int rows>
HOTLOOP_INLINE void finish(const TileWork<real>& work, const real (&sums)[rows][kPanel]) {
  using V = Vec<real>;
  for_lanes<real>(0, work.n, [&](int64 j, int64 n) HOTLOOP_BODY {
    const V bias = work.bias == nullptr ? V::zero() : load(work.bias + j, n);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      real* out = work.out + i * work.out_stride + j;
      V z = V::load(sums[i] + j);
      if (work.add) z = load(out, n) + z;
      if (work.bias != nullptr) z = z + bias;
      store(z, out, n);
    }
  });
}

template <class real, int rows>
__attribute__((noinline)) void run_tile(const TileWork<real>& work) {
  alignas(64) real sums[rows][kPanel];
  multiply(work, sums);
  finish(work, sums);
}

// The tile of `rows` in 1 ... most.
template <class real, int most = kTileRows<real>>
HOTLOOP_INLINE void run_tile_of(int64 rows, const TileWork<real>& work) {
  if constexpr (most > 1) {
    if (rows < most) return run_tile_of<real, most - 1>(rows, work);
  }
  run_tile<real, most>(work);
}

}  // namespace hotloop::HOTLOOP_ISA
