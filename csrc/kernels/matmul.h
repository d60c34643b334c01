// SPDX-License-Identifier: Apache-2.0
// How a matrix product is cut: into chunks for the threads, into blocks for the caches. From shapes alone.
#pragma once

#include "kernels/matmul_tile.h"

namespace hotloop::HOTLOOP_ISA {

// Rows of a block: they share the panels of B that pass through L2, and with kBlockDepth their part of A is a
// quarter of an L2 cache of 1 MB. 10 tiles of 14, or 16 of 6.
template <class real>
constexpr int64 kBlockRows = (kMaskedTail<real> ? 10 : 16) * kTileRows<real>;
// Columns of a strip: its outputs stay in L2 until they are finished.
constexpr int64 kStripColumns = 256;
// Columns of a chunk: 8 panels, of a wide product a strip; where A is copied up to 64 panels, as long as
// there are kEnoughChunks, because every chunk makes a copy of its own.
constexpr int64 kBlockColumns = 128;
constexpr int64 kCopyColumns = 1024;
constexpr int64 kEnoughChunks = 16;
// Longest run of k. With AVX2 a panel of 256 x 16 floats is 16 KB, half of the smallest L1. With AVX-512 two
// panels of 512 come from L2, which is fast enough, and outputs are read again half as often.
template <class real>
constexpr int64 kBlockDepth = kMaskedTail<real> ? 512 : 256;
// Elements of a run of B that need no prefetch: they stay in L1 or come from L2 in time anyway.
constexpr int64 kFetchedSize = 16384;
// Elements of a page: an L1 cache maps what lies that far apart to the same set.
template <class real>
constexpr int64 kPage = 4096 / static_cast<int64>(sizeof(real));
// Multiply-adds below which a chunk grows: 4096 cycles of an AVX2 or AVX-512 core, some 1 us.
template <class real>
constexpr int64 kMinChunkWork = kMaskedTail<real> ? 131072 : 65536;
// A product of fewer chunks is cut further, as far as that: the weight gradient of a small layer sums a whole
// batch, and may be half of a step. Two for each of two threads, so that they end at about the same time.
constexpr int64 kTeamChunks = 4;

constexpr int64 smaller(int64 a, int64 b) { return a < b ? a : b; }
constexpr int64 larger(int64 a, int64 b) { return a > b ? a : b; }
constexpr int64 round_up(int64 a, int64 step) { return ceil_div(a, step) * step; }

// The size of the pieces when `count` is cut evenly into pieces of at most `limit`, in whole steps.
constexpr int64 even_piece(int64 count, int64 limit, int64 step) {
  return count <= limit ? larger(count, 1) : round_up(ceil_div(count, ceil_div(count, limit)), step);
}

struct ChunkGrid {
  int64 rows, columns;              // of one chunk
  int64 row_chunks, column_chunks;  // column chunks vary fastest
};

// copied: whether a block of A is copied, so that few wide chunks are better than many.
template <class real>
constexpr ChunkGrid chunk_grid(int64 m, int64 n, int64 k, bool copied) {
  constexpr int64 kWork = kMinChunkWork<real>;
  constexpr int64 kColumns = kPanel * kTilePanels<real>;
  // Without a division where there is one chunk: small products are many.
  if (m * n * k <= kWork) return {m, n, m > 0 ? 1 : 0, 1};
  ChunkGrid grid{};
  grid.rows = even_piece(m, kBlockRows<real>, 1);
  const int64 enough_columns = round_up(ceil_div(kWork, grid.rows * k), kColumns);
  int64 widest = n >= 4 * kStripColumns ? kStripColumns : kBlockColumns;
  if (copied) {
    const int64 shared = n * ceil_div(m, grid.rows) / kEnoughChunks;
    widest = larger(kStripColumns, smaller(shared, kCopyColumns));
  }
  grid.columns = smaller(n, larger(even_piece(n, widest, kColumns), enough_columns));
  const int64 enough_rows = round_up(ceil_div(kWork, grid.columns * k), kTileRows<real>);
  grid.rows = smaller(m, larger(grid.rows, enough_rows));
  grid.column_chunks = ceil_div(n, grid.columns);
  const int64 wanted = smaller(kTeamChunks, m * n * k / kWork);
  if (ceil_div(m, grid.rows) * grid.column_chunks < wanted)
    grid.rows = larger(ceil_div(m, ceil_div(wanted, grid.column_chunks)), smaller(m, kTileRows<real>));
  grid.row_chunks = ceil_div(m, grid.rows);
  return grid;
}

}  // namespace hotloop::HOTLOOP_ISA
