// SPDX-License-Identifier: Apache-2.0
// Products of the chain kernel on the multiply-add units: out (tile, n) = A (tile, k) B (k, n), raw sums,
// into the place of `out` in shared memory.
//
// A thread has `height` rows by 4 columns and takes four of k at a time: height + 4 loads of 16 bytes for
// 16 height multiply-adds. At height 8 (a tile of 128 rows, 128 wide) that is 10.7 a load; a multiprocessor
// does 128 multiply-adds and loads 8 x 16 bytes a clock, and a row's load is one broadcast for all lanes of
// that row, so that both ends are near their floor. Small tiles have fewer outputs than there are threads:
// then 2 ... 32 neighbouring lanes share the k of a sum, and their parts are added by a butterfly.
#pragma once

#include <math.h>

#include "cuda/reduce.h"
#include "kernels/chain_tile_cuda.h"

namespace hotloop::cuda {

// How a tile's outputs go to threads: lanes of one sum fastest, then columns, then rows.
struct ChainShare {
  int height, lanes, across, down;  // down * height = rows of the tile; across * 4 >= n
  int lane, column, row;            // of this thread
  bool active;

  HL_DEVICE ChainShare(int tile, int n) {
    across = 1;
    while (across * 4 < n) across *= 2;
    const int even = tile * across / kChainThreads, least = tile < 2 ? tile : 2;
    height = even > least ? even : least;
    down = tile / height;
    lanes = kChainThreads / (down * across);
    if (lanes > kWarp) lanes = kWarp;
    const int t = static_cast<int>(threadIdx.x);
    lane = t % lanes;
    column = t / lanes % across;
    row = t / (lanes * across);
    active = row < down;  // of whole warps
  }
};

template <int height>
using ChainSums = float[height][4];

HL_DEVICE float dot4(Float4 a, Float4 b, float sum) {
  return ::fmaf(a.w, b.w, ::fmaf(a.z, b.z, ::fmaf(a.y, b.y, ::fmaf(a.x, b.x, sum))));
}
HL_DEVICE void add_row(float (&sums)[4], float a, Float4 b) {
  sums[0] = ::fmaf(a, b.x, sums[0]);
  sums[1] = ::fmaf(a, b.y, sums[1]);
  sums[2] = ::fmaf(a, b.z, sums[2]);
  sums[3] = ::fmaf(a, b.w, sums[3]);
}

// B stored (n, k): the thread's columns are column + i * across, so that its neighbours' rows lie side by
// side.
template <int height>
HL_DEVICE void add_by_columns(ChainSums<height>& sums, const ChainPiece& p, const ChainShare& s, int n) {
  const float* b[4];
  for (int i = 0; i < 4; ++i) {
    const int j = s.column + i * s.across;
    b[i] = p.b + (j < n ? j : 0) * p.b_stride;  // past the last column: any, not kept
  }
  const float* const a = p.a + s.row * p.a_stride;
  for (int k = 4 * s.lane; k < p.depth; k += 4 * s.lanes) {
    Float4 w[4];
    HL_UNROLL
    for (int i = 0; i < 4; ++i) w[i] = load4(b[i] + k);
    HL_UNROLL
    for (int r = 0; r < height; ++r) {
      const Float4 x = load4(a + r * s.down * p.a_stride + k);
      HL_UNROLL
      for (int i = 0; i < 4; ++i) sums[r][i] = dot4(x, w[i], sums[r][i]);
    }
  }
}

// B stored (k, n): the thread's columns are 4 column ... + 3.
template <int height>
HL_DEVICE void add_by_rows(ChainSums<height>& sums, const ChainPiece& p, const ChainShare& s, int n) {
  const float* const b = p.b + (4 * s.column < n ? 4 * s.column : 0);
  const float* const a = p.a + s.row * p.a_stride;
  for (int k = 4 * s.lane; k < p.depth; k += 4 * s.lanes) {
    Float4 w[4];
    HL_UNROLL
    for (int i = 0; i < 4; ++i) w[i] = load4(b + (k + i) * p.b_stride);
    HL_UNROLL
    for (int r = 0; r < height; ++r) {
      const Float4 x = load4(a + r * s.down * p.a_stride + k);
      add_row(sums[r], x.x, w[0]);
      add_row(sums[r], x.y, w[1]);
      add_row(sums[r], x.z, w[2]);
      add_row(sums[r], x.w, w[3]);
    }
  }
}

template <bool async, int height>
HL_DEVICE void multiply_share(const ChainTile& t, const ChainInstruction& s, const ChainShare& share) {
  const bool by_columns = s.b.form == ChainForm::kByColumns;
  const int n = s.columns;
  ChainSums<height> sums = {};
  for_pieces<async>(t, s, [&](const ChainPiece& piece) {
    if (!share.active) return;
    if (by_columns)
      add_by_columns<height>(sums, piece, share, n);
    else
      add_by_rows<height>(sums, piece, share, n);
  });
  if (!share.active) return;
  const int stride = padded(n, t.program.granule);
  HL_UNROLL
  for (int r = 0; r < height; ++r) {
    warp_reduce(sums[r], Sum{}, share.lanes);
    HL_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int j = by_columns ? share.column + i * share.across : 4 * share.column + i;
      if (share.lane == 0 && j < n)
        t.shared[s.out.place + (share.row + r * share.down) * stride + j] = sums[r][i];
    }
  }
}

template <bool async>
HL_DEVICE void multiply_plain(const ChainTile& t, const ChainInstruction& s) {
  const ChainShare share(t.program.tile, s.columns);
  if (share.height == 8) return multiply_share<async, 8>(t, s, share);
  if (share.height == 4) return multiply_share<async, 4>(t, s, share);
  multiply_share<async, 2>(t, s, share);
}

}  // namespace hotloop::cuda
