// SPDX-License-Identifier: Apache-2.0
// Products of the chain kernel on matrix units (sm_80 and up): out (tile, n) = A (tile, k) B (k, n), raw
// sums, into the place of `out` in shared memory.
//
// A warp has high x wide pieces of 16 x 8 outputs and takes 16 of k at a time. Operands stay float32 in
// shared memory and are rounded on their way to registers, so that all else is the same in every precision.
// Which k a thread's four numbers are is free as long as A and B agree: k = 4 t ... + 3 for thread t of four,
// which is one load of 16 bytes. Rows are free likewise: the eight of an instruction are taken in the order 0
// 4 1 5 2 6 3 7, so that the eight lanes of a quarter of that load find rows 4 apart, in different banks
// (strides are odd multiples of 16 bytes). B stored by rows comes in single words, two lanes to a bank.
//
// For 2 x 4 pieces a warp loads 8 times 512 bytes, 32 clocks of shared memory, for 8 x 2048 multiply-adds:
// four times the rate of the multiply-add units, and beside it the chain's writes to memory are what takes
// long. float32 by three tf32 products needs 24 instructions for those loads, and is bound by them.
#pragma once

#include <math.h>

#include "kernels/chain_tile_cuda.h"
#include "kernels/matmul_mma_terms_cuda.h"

namespace hotloop::cuda {

constexpr int kChainMmaDepth = 16;  // of k at a time; what tiles and weights are padded to
constexpr int kChainWarps = kChainThreads / kWarp;

// How a tile's outputs go to warps: pieces of columns first.
struct ChainWarps {
  int high, wide;     // pieces of 16 rows, of 8 columns of a warp
  int row, column;    // the warp's first
  int rows, columns;  // pieces that there are

  HL_DEVICE ChainWarps(int tile, int n) {
    rows = tile / 16;
    columns = (n + 7) / 8;
    // Four pieces side by side, two where the tile is so low that warps would be left over.
    wide = rows * ((columns + 3) / 4) <= kChainWarps / 2 ? 2 : 4;
    int across = 1;
    while (across * wide < columns) across *= 2;
    const int down = kChainWarps / across;
    high = (rows + down - 1) / down;
    row = warp_id() / across * high;
    column = warp_id() % across * wide;
  }
};

// Eight rows (or columns) in the order in which an instruction has them.
HL_DEVICE int chain_order(int i) { return i / 2 + 4 * (i % 2); }

HL_DEVICE void load_words(float (&to)[4], const float* p) {
  const Float4 v = load4(p);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

template <class Terms, int high, int wide>
HL_DEVICE void add_piece(float (&sums)[high][wide][4], const ChainPiece& p, const ChainWarps& w,
                         bool by_columns) {
  const int group = chain_order(lane_id() / 4), four = 4 * (lane_id() % 4);
  const float* const a = p.a + (16 * w.row + group) * p.a_stride + four;
  const int column = 8 * w.column + group;
  const float* const b = by_columns ? p.b + column * p.b_stride + four : p.b + four * p.b_stride + column;
  for (int k = 0; k < p.depth; k += kChainMmaDepth) {
    typename Terms::Right right[wide];
    HL_UNROLL
    for (int j = 0; j < wide; ++j) {
      float x[4] = {};
      if (w.column + j < w.columns) {
        if (by_columns) {
          load_words(x, b + 8 * j * p.b_stride + k);
        } else {
          HL_UNROLL
          for (int e = 0; e < 4; ++e) x[e] = b[(k + e) * p.b_stride + 8 * j];
        }
      }
      right[j] = Terms::right(x);
    }
    HL_UNROLL
    for (int i = 0; i < high; ++i) {
      if (w.row + i >= w.rows) continue;
      float g[4], h[4];
      load_words(g, a + 16 * i * p.a_stride + k);
      load_words(h, a + (16 * i + 8) * p.a_stride + k);
      Terms::multiply(sums[i], Terms::left(g, h), right);
    }
  }
}

template <class Terms, int high, int wide>
HL_DEVICE void multiply_warps(const ChainTile& t, const ChainInstruction& s, const ChainWarps& w) {
  const bool active = w.row < w.rows && w.column < w.columns;
  float sums[high][wide][4] = {};
  for_pieces<true>(t, s, [&](const ChainPiece& piece) {
    if (active) add_piece<Terms, high, wide>(sums, piece, w, s.b.form == ChainForm::kByColumns);
  });
  if (!active) return;
  const int stride = padded(s.columns, t.program.granule), group = chain_order(lane_id() / 4);
  float* const out = t.shared + s.out.place;
  HL_UNROLL
  for (int i = 0; i < high; ++i) {
    HL_UNROLL
    for (int j = 0; j < wide; ++j) {
      HL_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int row = 16 * (w.row + i) + group + e / 2 * 8;
        const int column = 8 * (w.column + j) + chain_order(lane_id() % 4 * 2 + e % 2);
        if (w.row + i < w.rows && column < s.columns) out[row * stride + column] = sums[i][j][e];
      }
    }
  }
}

template <class Terms>
HL_DEVICE void multiply_mma(const ChainTile& t, const ChainInstruction& s) {
  const ChainWarps w(t.program.tile, s.columns);
  if (w.high == 2) return multiply_warps<Terms, 2, 4>(t, s, w);
  if (w.wide == 4) return multiply_warps<Terms, 1, 4>(t, s, w);
  multiply_warps<Terms, 1, 2>(t, s, w);
}

}  // namespace hotloop::cuda
