// SPDX-License-Identifier: Apache-2.0
// How a matrix product is cut: into chunks for the threads, into blocks for the caches. From shapes alone.
#pragma once

#include "kernels/kernel.h"

namespace hotloop::HOTLOOP_ISA {

// Rows of A worked on while a panel of B stays in L1: 16 tiles of 6 pay for copying the panel.
constexpr int64 kBlockRows = 96;
// Rows of a block of A that is copied: 48 KB of stack with kBlockDepth, since a thread may have only 128 KB.
template <class real>
constexpr int64 kCopyRows = 192 / static_cast<int64>(sizeof(real));
// Columns of a chunk of a large product: 8 panels.
constexpr int64 kBlockColumns = 128;
// Longest run of k: a panel of 256 x 16 floats is 16 KB, half of the smallest L1.
constexpr int64 kBlockDepth = 256;
// Elements of a page: an L1 cache maps what lies that far apart to the same set.
template <class real>
constexpr int64 kPage = 4096 / static_cast<int64>(sizeof(real));
// Multiply-adds below which a chunk grows: 4096 cycles of an AVX2 core, some 1 us.
constexpr int64 kMinChunkWork = 65536;

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

constexpr ChunkGrid chunk_grid(int64 m, int64 n, int64 k) {
  ChunkGrid grid{};
  const int64 depth = larger(k, 1);
  grid.rows = even_piece(m, kBlockRows, 6);
  const int64 enough_columns = round_up(ceil_div(kMinChunkWork, grid.rows * depth), kPanel);
  grid.columns = smaller(larger(n, 1), larger(even_piece(n, kBlockColumns, kPanel), enough_columns));
  const int64 enough_rows = round_up(ceil_div(kMinChunkWork, grid.columns * depth), 6);
  grid.rows = smaller(larger(m, 1), larger(grid.rows, enough_rows));
  grid.row_chunks = ceil_div(m, grid.rows);
  // One column chunk even if n is 0: it owns the row sums.
  grid.column_chunks = larger(1, ceil_div(n, grid.columns));
  return grid;
}

}  // namespace hotloop::HOTLOOP_ISA
