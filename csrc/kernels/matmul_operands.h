// SPDX-License-Identifier: Apache-2.0
// Where the tiles of a block find their operands: in place if that reads well, else in a copy on the stack.
// A copy changes no bit: it holds the same elements, with zeros past the last column of B.
#pragma once

#include "cpu/workspace.h"
#include "kernels/matmul.h"
#include "kernels/panels.h"

namespace hotloop::HOTLOOP_ISA {

// A part of the outputs: `rows` from `row` on, n columns from `column` on.
struct Block {
  int64 row, rows, column, n;
};

// A run of k: elements [begin, begin + depth).
struct Run {
  int64 begin, depth;
  bool first, last;
  bool resumed;  // goes on with the sums of the piece before, which are in out
};

// The tiles of a block, one below the other, as even in height as can be.
template <class real>
struct TileRows {
  int64 rows, low, first_low;  // the tiles above first_low are one row higher

  explicit TileRows(int64 block_rows) : rows(block_rows), low(block_rows), first_low(0) {
    if (rows <= kTileRows<real>) return;  // no division for one tile
    const int64 tiles = ceil_div(rows, kTileRows<real>);
    low = rows / tiles;
    first_low = (rows - low * tiles) * (low + 1);
  }

  // Steps of k to every row that is fetched, if all of the next panels shall come. One tile would have to
  // fetch as much as it reads; it leaves that to the processor.
  int64 pace() const {
    const int64 tiles = ceil_div(rows, kTileRows<real>);
    return tiles > 1 ? smaller(tiles, kSlowestPace) : kSlowestPace;
  }

  // body(i, height)
  template <class Body>
  HOTLOOP_INLINE void for_each(Body&& body) const {
    for (int64 i = 0; i < rows;) {
      const int64 height = i < first_low ? low + 1 : low;
      body(i, height);
      i += height;
    }
  }
};

// The block of A for one run: tile (i, height) begins at a + i*step.
template <class real>
struct BlockOfA {
  const real* a;
  int64 step, stride;  // stride 0: the height of the tile
  bool by_columns;
};

// Elements of a row of a copied block beyond its run, at most: room for the whole vectors that are stored, or
// for what keeps the rows apart.
constexpr int64 kCopyPad = 2 * kPanel;
template <class real>
constexpr int64 kCopySize =
    larger(kBlockRows<real> * (kBlockDepth<real> + kCopyPad), kDeepRows<real>*(kWideDepth<real> + kCopyPad));

// If what a tile reads together falls into the same few sets of L1 (the stride is a multiple of a page), the
// block is copied: 93 against 52 % of the peak for 1024^3. Any other stride is read in place, because the
// copy costs some 8 % of the work of eight panels. Tiles need one stride of 1.
template <class real>
bool copies_a(const MatmulArgs<real>& args) {
  if (args.a_stride_m != 1 && args.a_stride_k != 1) return true;
  const int64 stride = args.a_stride_k == 1 ? args.a_stride_m : args.a_stride_k;
  return stride % kPage<real> == 0 && args.n >= 4 * kPanel && args.m > kTileRows<real>;
}

// Rows of A by columns between what is copied and what is fetched: across pages the processor foresees
// nothing by itself.
constexpr int64 kCopyAhead = 16;

// A by columns: tile by tile, k-major inside. A whole vector is stored: what is past a tile's rows is
// overwritten by its next k, or is padding.
template <class real>
BlockOfA<real> copy_columns_of_a(const real* a, int64 stride_k, int64 rows, int64 depth,
                                 const TileRows<real>& tiles, real* buffer) {
  constexpr int64 width = Vec<real>::width;
  const int64 step = depth + width;
  for (int64 p = 0; p < depth; ++p) {
    for (int64 i = 0; i < rows; i += kPanel) __builtin_prefetch(a + (p + kCopyAhead) * stride_k + i);
    tiles.for_each([&](int64 i, int64 height) HOTLOOP_BODY {
      for (int64 lane = i; lane < i + height; lane += width) {
        const int64 n = smaller(rows - lane, width);
        load(a + lane + p * stride_k, n).store(buffer + i * step + p * height + lane - i);
      }
    });
  }
  return {buffer, step, 0, true};
}

// A by rows, or with two strides: row by row. They lie an odd number of lines apart, so that a tile's rows
// are in sets of L1 of their own, and one element more, so that they do not all come to the end of a line at
// the same k: 1 % of a product.
template <class real>
BlockOfA<real> copy_rows_of_a(const real* a, int64 stride_m, int64 stride_k, int64 rows, int64 depth,
                              real* buffer) {
  const int64 step = (round_up(depth, kPanel) | kPanel) + 1;
  for (int64 i = 0; i < rows; ++i) {
    const real* row = a + i * stride_m;
    real* out = buffer + i * step;
    if (stride_k == 1) {
      for_lanes<real>(0, depth, [&](int64 p, int64 n) HOTLOOP_BODY { store(load(row + p, n), out + p, n); });
    } else {
      for (int64 p = 0; p < depth; ++p) out[p] = row[p * stride_k];
    }
  }
  return {buffer, step, step, false};
}

// buffer: kCopySize, or null to read A in place.
template <class real>
BlockOfA<real> block_of_a(const MatmulArgs<real>& args, const Block& block, const TileRows<real>& tiles,
                          const Run& run, real* buffer) {
  const int64 stride_m = args.a_stride_m;
  const int64 stride_k = args.a_stride_k;
  const real* a = args.a + block.row * stride_m + run.begin * stride_k;
  if (buffer != nullptr) {
    return stride_m == 1 ? copy_columns_of_a(a, stride_k, block.rows, run.depth, tiles, buffer)
                         : copy_rows_of_a(a, stride_m, stride_k, block.rows, run.depth, buffer);
  }
  return stride_k == 1 ? BlockOfA<real>{a, stride_m, stride_m, false} : BlockOfA<real>{a, 1, stride_k, true};
}

// A few panels of B for one run: element (p, j) at b[p*stride + j/16*step + j%16].
template <class real>
struct PanelsOfB {
  const real* b;
  int64 stride, step;
};

// Panels of B that are copied at once: 512 bytes of a row, and half of L2. And the elements of their copy.
constexpr int64 kCopiedPanels = 8;
template <class real>
constexpr int64 kPanelsSize = kCopiedPanels * (kWideDepth<real> + 1) * kPanel;
static_assert(static_cast<int64>(sizeof(float)) * (kCopySize<float> + kPanelsSize<float>) <=
              static_cast<int64>(kWorkspaceBytes));
// Elements of a B that does not stay in L3, 16 MB.
constexpr int64 kFarSize = int64{1} << 22;

// Whether panels of B are copied: without masks, where there is less than a vector to read; and where rows
// lie pages apart and are read again by the tiles of one block, up to 1.5 times as fast. With AVX-512, whose
// panels come from L2 anyway, only where B comes from far, or runs are long and cannot be cut. More blocks
// would repeat the copy: for them a matrix is packed before (see rules/matmul.py).
template <class real>
bool copies_b(const MatmulArgs<real>& args, const Block& block) {
  if (args.b_packed != 0) return false;
  if (!kMaskedTail<real> && (block.column + block.n) % kPanel != 0) return true;
  return args.b_stride_k % kPage<real> == 0 && block.rows == args.m && args.m > kTileRows<real> &&
         (!kMaskedTail<real> || args.k > kWideDepth<real> || args.n * args.k >= kFarSize);
}

// The panels at block.column, of block.n columns, in place.
template <class real>
PanelsOfB<real> panels_of_b(const MatmulArgs<real>& args, const Block& block, const Run& run) {
  if (args.b_packed != 0) {
    return {args.b + (block.column / kPanel * args.k + run.begin) * kPanel, kPanel, args.k * kPanel};
  }
  return {args.b + run.begin * args.b_stride_k + block.column, args.b_stride_k, kPanel};
}

// A copy of n columns in panels, with zeros past n. A line between panels: their rows are in sets of L1 of
// their own.
template <class real>
PanelsOfB<real> copy_panels(const PanelsOfB<real>& from, int64 n, int64 depth, real* buffer) {
  const int64 step = (depth + 1) * kPanel;
  copy_to_panels<false>(from.b, from.stride, depth, n, buffer, step);
  return {buffer, kPanel, step};
}

}  // namespace hotloop::HOTLOOP_ISA
