// SPDX-License-Identifier: Apache-2.0
// The register tile of the matrix product: `rows` x 16 outputs stay in registers while k runs. Per k it
// loads 16 contiguous elements of B and broadcasts one element of A per row. Every output is one chain of
// fma in the order of k, whatever the tile's height, so a row has the same bits in any batch.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// 6 x 16 floats are 12 of the 16 AVX2 registers: 12 independent chains cover two FMA units of latency 4,
// and 3 registers are left for B and A. With one lane: what fits sixteen SSE registers when the compiler
// vectorises along the 16 columns.
template <class real>
constexpr int kTileRows = Vec<real>::width > 1 ? 6 : 2;

template <class real, int rows>
struct Tile {
  using V = Vec<real>;
  static constexpr int kVectors = static_cast<int>(kPanel / V::width);
  V sum[rows][kVectors];
};

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

// sum_ij = a_i0 b_0j + a_i1 b_1j + ...
template <class real, int rows>
HOTLOOP_INLINE void multiply(Tile<real, rows>& tile, const TileWork<real>& work) {
  using V = Vec<real>;
  constexpr int vectors = Tile<real, rows>::kVectors;
  for (auto& row : tile.sum) {
    for (V& sum : row) sum = V::zero();
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
      for (int j = 0; j < vectors; ++j) tile.sum[i][j] = fma(scalar, row[j], tile.sum[i][j]);
    }
    a += stride_k;
    b += stride_b;
  }
}

// out = (add ? out : 0) + sum + bias
template <class real, int rows>
HOTLOOP_INLINE void store(const Tile<real, rows>& tile, const TileWork<real>& work) {
  using V = Vec<real>;
#pragma GCC unroll 16
  for (int j = 0; j < Tile<real, rows>::kVectors; ++j) {
    const int64 at = j * V::width;
    const int64 n = work.n - at < V::width ? work.n - at : V::width;
    if (n <= 0) return;
    const V bias = work.bias == nullptr ? V::zero() : load(work.bias + at, n);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      real* out = work.out + i * work.out_stride + at;
      V z = tile.sum[i][j];
      if (work.add) z = load(out, n) + z;
      if (work.bias != nullptr) z = z + bias;
      store(z, out, n);
    }
  }
}

template <class real, int rows>
__attribute__((noinline)) void run_tile(const TileWork<real>& work) {
  Tile<real, rows> tile;
  multiply(tile, work);
  store(tile, work);
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
