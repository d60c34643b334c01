// SPDX-License-Identifier: Apache-2.0
// Matrix product with its epilogue. A chunk is a block of rows by a few panels of columns and sums the
// whole of k in runs: run by run, a few panels at a time (they stay in L1), tile by tile down the rows.
// Runs depend on k alone and are added in order; columns past n are computed on zeros and not stored. So
// packing, edges, chunks and batch size leave the bits of an output unchanged.
#include "kernels/lanes.h"
#include "kernels/matmul_epilogue.h"
#include "kernels/matmul_operands.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

// The tiles of a few panels of B.
template <class real>
void run_panels(const MatmulArgs<real>& args, const Block& block, const TileRows<real>& tiles, const Run& run,
                const BlockOfA<real>& a, const PanelsOfB<real>& b) {
  const int64 panels = ceil_div(block.n, kPanel);
  TileWork<real> work;
  work.b = b.b;
  work.b_stride = b.stride;
  work.b_step = b.step;
  work.k = run.depth;
  work.out_stride = args.out_stride;
  work.n = block.n;
  work.bias = run.last && args.bias != nullptr ? args.bias + block.column : nullptr;
  work.add = !run.first || args.accumulate != 0;
  tiles.for_each([&](int64 i, int64 height) {
    const int64 row = block.row + i;
    work.a = a.a + i * a.step;
    work.a_stride = a.stride == 0 ? height : a.stride;
    work.out = args.out + row * args.out_stride + block.column;
    (a.by_columns ? tile_of<real, true> : tile_of<real, false>)(height, panels)(work);
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

// A block of rows for one run of k: whole tiles of panels, then one panel at a time.
template <class real>
void run_block(const MatmulArgs<real>& args, const Block& block, const Run& run, real* a_buffer,
               real* b_buffer) {
  const TileRows<real> tiles(block.rows);
  const BlockOfA<real> a = block_of_a(args, block, tiles, run, a_buffer);
  const int64 most = kPanel * (block.rows <= kWideRows<real> ? kMostPanels<real> : kTilePanels<real>);
  for (int64 j = 0; j < block.n;) {
    const int64 left = block.n - j;
    const int64 n = left > most - kPanel ? smaller(left, most) : smaller(left, kPanel);
    const Block part{block.row, block.rows, block.column + j, n};
    run_panels(args, part, tiles, run, a, panels_of_b(args, part, run, b_buffer));
    j += n;
  }
}

// A chunk, from the first k to the dropped-out output. Blocks of copied rows share a run of B, which stays in
// the L2 cache.
template <class real>
void run_chunk(const MatmulArgs<real>& args, const StepContext& ctx, const Block& chunk, real* a_buffer) {
  alignas(64) real b_buffer[kCopyPanels<real> * kBlockDepth * kPanel];
  const int64 depth = even_piece(args.k, kBlockDepth, 1);
  const int64 height = a_buffer != nullptr ? kCopyRows<real> : chunk.rows;
  for (int64 begin = 0; begin == 0 || begin < args.k; begin += depth) {  // k = 0 still writes the bias
    const Run run{begin, smaller(depth, args.k - begin), begin == 0, begin + depth >= args.k};
    for (int64 i = 0; i < chunk.rows; i += height) {
      const Block block{chunk.row + i, smaller(height, chunk.rows - i), chunk.column, chunk.n};
      run_block(args, block, run, a_buffer, b_buffer);
    }
  }
  finish_block(args, ctx, chunk);
}

// A function of its own, so that only this case needs the large frame.
template <class real>
__attribute__((noinline)) void run_copied_chunk(const MatmulArgs<real>& args, const StepContext& ctx,
                                                const Block& chunk) {
  alignas(64) real a_buffer[kCopySize<real>];
  run_chunk(args, ctx, chunk, a_buffer);
}

}  // namespace

template <class real>
int64 matmul_chunks(const MatmulArgs<real>& args) {
  const ChunkGrid grid = chunk_grid<real>(args.m, args.n, args.k);
  return grid.row_chunks * grid.column_chunks;
}

template <class real>
void matmul_run(const MatmulArgs<real>& args, const StepContext& ctx, int64 chunk) {
  const ChunkGrid grid = chunk_grid<real>(args.m, args.n, args.k);
  const Range rows = chunk_range(chunk / grid.column_chunks, grid.rows, args.m);
  const Range columns = chunk_range(chunk % grid.column_chunks, grid.columns, args.n);
  if (args.row_sum != nullptr && columns.begin == 0) sum_rows(args, rows.begin, rows.end);
  const Block block{rows.begin, rows.end - rows.begin, columns.begin, columns.end - columns.begin};
  if (copies_a(args, block.n)) {
    run_copied_chunk(args, ctx, block);
  } else {
    run_chunk<real>(args, ctx, block, nullptr);
  }
}

HOTLOOP_INSTANTIATE(matmul, MatmulArgs)

}  // namespace hotloop::HOTLOOP_ISA
