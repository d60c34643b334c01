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

// out = (add ? keep out : 0) + alpha tile + bias. The tile itself knows nothing of factors, which are rare
// and would take registers from its loop: it leaves its sums in L1.
template <class real>
__attribute__((noinline)) void run_scaled(TileFunction<real> tile, TileWork<real> work, int64 height,
                                          real alpha, real keep) {
  using V = Vec<real>;
  constexpr int64 kMostRows = larger(kTileRows<real>, kWideRows<real>);
  constexpr int64 kWidth = kPanel * larger(kTilePanels<real>, kMostPanels<real>);
  real sums[kMostRows * kWidth];
  real* const out = work.out;
  const real* const bias = work.bias;
  const int64 stride = work.out_stride;
  const bool add = work.add;
  work.out = sums;
  work.out_stride = kWidth;
  work.bias = nullptr;
  work.add = false;
  tile(work);
  for (int64 i = 0; i < height; ++i) {
    for_lanes<real>(0, work.n, [&](int64 j, int64 n) HOTLOOP_BODY {
      V sum = V(alpha) * load(sums + i * kWidth + j, n);
      if (add) sum = fma(V(keep), load(out + i * stride + j, n), sum);
      if (bias != nullptr) sum = sum + load(bias + j, n);
      store(sum, out + i * stride + j, n);
    });
  }
}

// The tiles of a few panels of B. Meanwhile the panels at `next` come into L2, some of their rows with each
// tile; null if there are none.
template <class real>
void run_panels(const MatmulArgs<real>& args, const Block& block, const TileRows<real>& tiles, const Run& run,
                const BlockOfA<real>& a, const PanelsOfB<real>& b, const real* next) {
  const int64 panels = ceil_div(block.n, kPanel);
  TileWork<real> work;
  work.b = b.b;
  work.b_stride = b.stride;
  work.b_step = b.step;
  work.k = run.depth;
  work.pace = run.depth * args.n < kFetchedSize ? run.depth + 1
              : next != nullptr                 ? tiles.pace()
                                                : kSlowestPace;
  work.out_stride = args.out_stride;
  work.n = block.n;
  work.bias = run.last && args.bias != nullptr ? args.bias + block.column : nullptr;
  work.add = !run.resumed && (!run.first || args.beta != 0.0);
  work.resume = run.resumed;
  const bool scaled = args.alpha != 1.0 || (run.first && args.beta != 0.0 && args.beta != 1.0);
  const real keep = run.first ? static_cast<real>(args.beta) : real(1);
  int64 fetched = 0;
  tiles.for_each([&](int64 i, int64 height) {
    const int64 row = block.row + i;
    work.a = a.a + i * a.step;
    work.a_stride = a.stride == 0 ? height : a.stride;
    work.out = args.out + row * args.out_stride + block.column;
    work.ahead = next != nullptr && fetched < run.depth ? next + fetched * b.stride : b.b;
    fetched += run.depth / work.pace;
    const TileFunction<real> tile =
        (a.by_columns ? tile_of<real, true> : tile_of<real, false>)(height, panels);
    if (scaled) {
      run_scaled(tile, work, height, static_cast<real>(args.alpha), keep);
    } else {
      tile(work);
    }
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

// A strip of columns for one run of k: whole tiles of panels, then one panel at a time.
template <class real>
void run_strip(const MatmulArgs<real>& args, const Block& strip, const TileRows<real>& tiles, const Run& run,
               const BlockOfA<real>& a, real* b_buffer) {
  const int64 most = kPanel * (strip.rows <= kWideRows<real> ? kMostPanels<real> : kTilePanels<real>);
  const int64 step = b_buffer != nullptr ? kPanel * kCopiedPanels : strip.n;
  for (int64 first = 0; first < strip.n; first += step) {
    const int64 end = smaller(first + step, strip.n);
    PanelsOfB<real> b = panels_of_b(args, {strip.row, strip.rows, strip.column + first, end - first}, run);
    if (b_buffer != nullptr) b = copy_panels(b, end - first, run.depth, b_buffer);
    for (int64 j = first; j < end;) {
      const int64 left = end - j;
      const int64 n = left > most - kPanel ? smaller(left, most) : smaller(left, kPanel);
      const PanelsOfB<real> next{b.b + n / kPanel * b.step, b.stride, b.step};
      const Block part{strip.row, strip.rows, strip.column + j, n};
      j += n;
      run_panels(args, part, tiles, run, a, b,
                 b_buffer == nullptr && strip.column + j < args.n ? next.b : nullptr);
      b = next;
    }
  }
}

// A block of rows, from the first k to the dropped-out output. A strip of columns at a time goes through all
// runs of k, or where A is copied all strips through one run.
template <class real>
void run_block(const MatmulArgs<real>& args, const StepContext& ctx, const Block& block, bool copied) {
  const TileRows<real> tiles(block.rows);
  const int64 depth = run_depth<real>(args.n, args.k);
  const int64 group = copied ? larger(block.n, 1) : kStripColumns;
  const bool copies_panels = copies_b(args, block);
  real* const buffer = copied || copies_panels ? reinterpret_cast<real*>(workspace()) : nullptr;
  // In place, a long run is cut: all its rows of B would not fit into the sets of L2 that they map to. The
  // tiles of the second piece go on with the sums, so that no bit changes.
  const bool cut =
      !copies_panels && args.b_packed == 0 && args.k == depth && args.alpha == 1.0 && args.beta == 0.0;
  const int64 piece = cut ? even_piece(depth, kBlockDepth<real>, 1) : depth;
  for (int64 first = 0; first < block.n; first += group) {
    for (int64 begin = 0; begin == 0 || begin < args.k; begin += piece) {  // k = 0 still writes the bias
      const Run run{begin, smaller(piece, args.k - begin), begin == 0, begin + piece >= args.k,
                    cut && begin > 0};
      const BlockOfA<real> a = block_of_a(args, block, tiles, run, copied ? buffer : nullptr);
      const int64 end = smaller(first + group, block.n);
      for (int64 j = first; j < end; j += kStripColumns) {
        const Block strip{block.row, block.rows, block.column + j, smaller(kStripColumns, end - j)};
        run_strip(args, strip, tiles, run, a, copies_panels ? buffer + kCopySize<real> : nullptr);
        if (run.last) finish_block(args, ctx, strip);
      }
    }
  }
}

// Rows and columns of the product, by blocks of even height.
template <class real>
void run_rows(const MatmulArgs<real>& args, const StepContext& ctx, Range rows, Range columns, bool copied) {
  const int64 most = block_rows<real>(run_depth<real>(args.n, args.k));
  const int64 height = even_piece(rows.end - rows.begin, most, 1);
  for (int64 row = rows.begin; row < rows.end; row += height) {
    const Block block{row, smaller(height, rows.end - row), columns.begin, columns.end - columns.begin};
    run_block(args, ctx, block, copied);
  }
}

}  // namespace

template <class real>
int64 matmul_chunks(const MatmulArgs<real>& args) {
  const ChunkGrid grid = chunk_grid<real>(args.m, args.n, args.k, copies_a(args));
  return grid.row_chunks * grid.column_chunks;
}

// Blocks of rows as wide as the product: each copies its part of A once.
template <class real>
void all_chunks(const MatmulArgs<real>& args, const StepContext& ctx) {
  if (args.row_sum != nullptr) sum_rows(args, 0, args.m);
  run_rows(args, ctx, {0, args.m}, {0, args.n}, copies_a(args));
}

template <class real>
void matmul_run(const MatmulArgs<real>& args, const StepContext& ctx, int64 chunk) {
  const bool copied = copies_a(args);
  const ChunkGrid grid = chunk_grid<real>(args.m, args.n, args.k, copied);
  const Range rows = chunk_range(chunk / grid.column_chunks, grid.rows, args.m);
  const Range columns = chunk_range(chunk % grid.column_chunks, grid.columns, args.n);
  if (args.row_sum != nullptr && columns.begin == 0) sum_rows(args, rows.begin, rows.end);
  run_rows(args, ctx, rows, columns, copied);
}

HOTLOOP_INSTANTIATE(matmul, MatmulArgs)
template void all_chunks<float>(const MatmulArgs<float>&, const StepContext&);
#ifdef HOTLOOP_ISA_HAS_DOUBLE
template void all_chunks<double>(const MatmulArgs<double>&, const StepContext&);
#endif

}  // namespace hotloop::HOTLOOP_ISA
