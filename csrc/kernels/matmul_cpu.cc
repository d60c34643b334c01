// SPDX-License-Identifier: Apache-2.0
// Matrix product with its epilogue. A chunk is a block of rows by a few panels of columns and sums the
// whole of k in runs: run by run, panel by panel (a panel of B stays in L1), tile by tile down the rows.
// Runs depend on k alone and are added in order; columns past n are computed on zeros and not stored. So
// packing, edges, chunks and batch size leave the bits of an output unchanged.
#include "kernels/matmul.h"

#include "kernels/dropout.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/matmul_tile.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

struct Identity {
  template <class V>
  static HOTLOOP_INLINE V value(V x, V, V) {
    return x;
  }
};

// A part of the outputs: `rows` from `row` on, n columns from `column` on.
struct Block {
  int64 row, rows, column, n;
};

// out = f(out), in place; saved is what the gradient of f reads: out before (Input) or after.
enum Reads { Input, Output, Sign };
template <class F, Reads reads, class real>
void activate(const MatmulArgs<real>& args, const Block& block) {
  using V = Vec<real>;
  const V p0(static_cast<real>(args.p0));
  const V p1(static_cast<real>(args.p1));
  for (int64 i = 0; i < block.rows; ++i) {
    const int64 at = (block.row + i) * args.out_stride + block.column;
    for_lanes<real>(0, block.n, [&](int64 j, int64 n) HOTLOOP_BODY {
      const V z = load(args.out + at + j, n);
      const V y = F::value(z, p0, p1);
      if (args.saved != nullptr) store(reads == Input ? z : y, args.saved + at + j, n);
      store(y, args.out + at + j, n);
    });
  }
}

// One switch per finished tile, while it is in L1.
template <class real>
void activate_tile(const MatmulArgs<real>& args, const Block& block) {
  enum Activation : int64 {
#define HOTLOOP_UNARY(name, Functor, reads) k_##name,
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
  };
  switch (args.activation) {
#define HOTLOOP_UNARY(name, Functor, reads) \
  case k_##name:                            \
    return activate<Functor, reads>(args, block);
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
    default:
      if (args.saved != nullptr) activate<Identity, Input>(args, block);
  }
}

// Row by row, because the mask is numbered along rows: element i*n + j.
template <class real>
void drop(const MatmulArgs<real>& args, const DropoutMask<real>& mask, const Block& block) {
  for (int64 i = block.row; i < block.row + block.rows; ++i) {
    real* out = args.out + i * args.out_stride + block.column;
    for_each_dropped(mask, i * args.n + block.column, block.n,
                     [&](int64 j, int64 n, auto&& dropped)
                         HOTLOOP_BODY { store(dropped(load(out + j, n)), out + j, n); });
  }
}

// A run of k: elements [begin, begin + depth).
struct Run {
  int64 begin, depth;
  bool first, last;
};

// The panel of B at block.column, for one run: where it lies if it can be read there, else copied into
// `buffer` (depth, 16) with zeros past n. Copying costs about one tile's loads, so several must profit.
template <class real>
const real* panel_of(const MatmulArgs<real>& args, const Block& block, const Run& run, real* buffer,
                     int64& stride) {
  if (args.b_packed != 0) {
    stride = kPanel;
    return args.b + (block.column / kPanel * args.k + run.begin) * kPanel;
  }
  const real* b = args.b + run.begin * args.b_stride_k + block.column;
  if (block.n == kPanel && block.rows <= 2 * kTileRows<real>) {
    stride = args.b_stride_k;
    return b;
  }
  stride = kPanel;
  for (int64 p = 0; p < run.depth; ++p) {
    for (int64 j = 0; j < kPanel; j += Vec<real>::width) {
      const int64 n = larger(0, smaller(block.n - j, Vec<real>::width));
      load(b + p * args.b_stride_k + j, n).store(buffer + p * kPanel + j);
    }
  }
  return buffer;
}

// Calls body(i, rows) for the tiles of a block, one below the other, as even in height as can be.
template <class real, class Body>
HOTLOOP_INLINE void for_tiles(int64 block_rows, Body&& body) {
  const int64 tiles = ceil_div(block_rows, kTileRows<real>);
  const int64 low = block_rows / tiles;
  const int64 first_low = block_rows % tiles * (low + 1);  // the tiles above are one row higher
  for (int64 i = 0; i < block_rows;) {
    const int64 rows = i < first_low ? low + 1 : low;
    body(i, rows);
    i += rows;
  }
}

// The block of A for one run: tile (i, rows) reads a[i*step + ...] with the strides given.
template <class real>
struct BlockOfA {
  const real* a;
  int64 step, stride_m, stride_k;  // stride_k 0: the rows of the tile
};

// If the k of a tile all fall into the same few sets of L1 (their stride is a multiple of a page), the block
// is copied tile by tile, k-major inside: 70 against 52 % of the peak for 1024^3. Any other stride is read
// in place, because the copy costs some 8 % of the work of eight panels.
template <class real>
bool copies_a(const MatmulArgs<real>& args, int64 columns) {
  return args.a_stride_m == 1 && args.a_stride_k % kPage<real> == 0 && columns >= 4 * kPanel;
}

// buffer: kCopyRows x (kBlockDepth + width), or null to read A in place.
template <class real>
BlockOfA<real> block_of_a(const MatmulArgs<real>& args, const Block& block, const Run& run, real* buffer) {
  const real* a = args.a + block.row * args.a_stride_m + run.begin * args.a_stride_k;
  if (buffer == nullptr) return {a, args.a_stride_m, args.a_stride_m, args.a_stride_k};
  // Whole vectors are stored: what is past a tile's rows is overwritten by its next k, or is padding.
  constexpr int64 width = Vec<real>::width;
  const int64 step = run.depth + width;
  for (int64 p = 0; p < run.depth; ++p) {
    for_tiles<real>(block.rows, [&](int64 i, int64 rows) HOTLOOP_BODY {
      for (int64 lane = i; lane < i + rows; lane += width) {
        const int64 n = smaller(block.rows - lane, width);
        load(a + lane + p * args.a_stride_k, n).store(buffer + i * step + p * rows + lane - i);
      }
    });
  }
  return {buffer, step, 1, 0};
}

// The tiles of one panel of B.
template <class real>
void run_panel(const MatmulArgs<real>& args, const Block& block, const Run& run, const BlockOfA<real>& a,
               const real* b, int64 b_stride) {
  const bool activated = run.last && (args.activation >= 0 || args.saved != nullptr);
  for_tiles<real>(block.rows, [&](int64 i, int64 rows) {
    const int64 row = block.row + i;
    TileWork<real> work;
    work.a = a.a + i * a.step;
    work.a_stride_m = a.stride_m;
    work.a_stride_k = a.stride_k == 0 ? rows : a.stride_k;
    work.b = b;
    work.b_stride = b_stride;
    work.k = run.depth;
    work.out = args.out + row * args.out_stride + block.column;
    work.out_stride = args.out_stride;
    work.n = block.n;
    work.bias = run.last && args.bias != nullptr ? args.bias + block.column : nullptr;
    work.add = !run.first || args.accumulate != 0;
    run_tile_of<real>(rows, work);
    if (activated) activate_tile(args, {row, rows, block.column, block.n});
  });
}

// row_sum (rows) = sum over k of A, along whichever axis is contiguous; runs of k are summed apart.
template <class real>
void sum_rows(const MatmulArgs<real>& args, int64 begin, int64 end) {
  if (args.a_stride_k == 1 && args.a_stride_m != 1) {
    for (int64 i = begin; i < end; ++i) {
      double total[1];
      sum_row<real, 1>(args.k, total, [&](int64 p, int64 n, Vec<real>(&terms)[1]) HOTLOOP_BODY {
        terms[0] = load(args.a + i * args.a_stride_m + p, n);
      });
      args.row_sum[i] = static_cast<real>(total[0]);
    }
  } else if (args.a_stride_m == 1) {
    sum_columns<real, 1>(
        args.k, begin, end,
        [&](int64 p, int64 i, int64 n, Vec<real>(&terms)[1])
            HOTLOOP_BODY { terms[0] = load(args.a + p * args.a_stride_k + i, n); },
        [&](int64 i, int64 n, Vec<real>(&sums)[1]) HOTLOOP_BODY { store(sums[0], args.row_sum + i, n); });
  } else {
    for (int64 i = begin; i < end; ++i) {
      double total = 0.0;
      for (int64 p = 0; p < args.k; ++p) {
        total += static_cast<double>(args.a[i * args.a_stride_m + p * args.a_stride_k]);
      }
      args.row_sum[i] = static_cast<real>(total);
    }
  }
}

// A block of rows, from the first k to the dropped-out output.
template <class real>
void run_block(const MatmulArgs<real>& args, const StepContext& ctx, const Block& block, real* a_buffer) {
  alignas(64) real b_buffer[kBlockDepth * kPanel];
  const int64 depth = even_piece(args.k, kBlockDepth, 1);
  const int64 runs = larger(1, ceil_div(args.k, depth));  // k = 0 still writes the bias
  for (int64 r = 0; r < runs; ++r) {
    const Run run{r * depth, smaller(depth, args.k - r * depth), r == 0, r == runs - 1};
    const BlockOfA<real> a = block_of_a(args, block, run, a_buffer);
    for (int64 j = 0; j < block.n; j += kPanel) {
      const Block panel{block.row, block.rows, block.column + j, smaller(kPanel, block.n - j)};
      int64 stride = 0;
      const real* b = panel_of(args, panel, run, b_buffer, stride);
      run_panel(args, panel, run, a, b, stride);
    }
  }
  const DropoutMask<real> mask(ctx, args.dropout, args.dropout_row);
  if (!mask.identity()) drop(args, mask, block);
}

// A function of its own, so that only this case needs the large frame.
template <class real>
__attribute__((noinline)) void run_copied_block(const MatmulArgs<real>& args, const StepContext& ctx,
                                                const Block& block) {
  alignas(64) real a_buffer[kCopyRows<real> * (kBlockDepth + Vec<real>::width)];
  run_block(args, ctx, block, a_buffer);
}

}  // namespace

template <class real>
int64 matmul_chunks(const MatmulArgs<real>& args) {
  const ChunkGrid grid = chunk_grid(args.m, args.n, args.k);
  return grid.row_chunks * grid.column_chunks;
}

template <class real>
void matmul_run(const MatmulArgs<real>& args, const StepContext& ctx, int64 chunk) {
  const ChunkGrid grid = chunk_grid(args.m, args.n, args.k);
  const Range rows = chunk_range(chunk / grid.column_chunks, grid.rows, args.m);
  const Range columns = chunk_range(chunk % grid.column_chunks, grid.columns, args.n);
  if (args.row_sum != nullptr && columns.begin == 0) sum_rows(args, rows.begin, rows.end);
  const int64 width = columns.end - columns.begin;
  const bool copied = copies_a(args, width);
  const int64 height = copied ? kCopyRows<real> : kBlockRows;
  for (int64 i = rows.begin; i < rows.end; i += height) {
    const Block block{i, smaller(height, rows.end - i), columns.begin, width};
    if (copied) {
      run_copied_block(args, ctx, block);
    } else {
      run_block<real>(args, ctx, block, nullptr);
    }
  }
}

HOTLOOP_INSTANTIATE(matmul, MatmulArgs)

}  // namespace hotloop::HOTLOOP_ISA
