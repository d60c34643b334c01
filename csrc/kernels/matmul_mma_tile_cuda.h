// SPDX-License-Identifier: Apache-2.0
// The product by tiles on the matrix units: a block sums a tile of the output over k, a warp WM x WN of its
// elements in registers; several stages of shared memory, one of which is read while copies fill the others.
//
// Floors, in clocks of a multiprocessor for a step of k, by tile, for 1024 (bf16), 512 (tf32) and 171
// (float32: three products) multiply-adds a clock, which is an A100's peak; the same instructions reach about
// 1.25 times that on an H100 (0.62 of what its own can do). Operands are float32 in memory and in shared
// memory, which has 128 bytes a clock: a step is written once and read by every warp. L2 gives a
// multiprocessor about 25 bytes a clock when all of them ask (5.6 TB/s on an H100), for 4 (BM + BN) bytes.
//
//   tile      warps         bf16  tf32  float32   shared   L2
//   128x256   8 of 64x64      32    64      192       44   61
//   128x128   8 of 64x32      16    32       96       32   41
//    64x64    4 of 32x32       4     8       24       12   20
//
// So tf32 and bf16 products of large matrices are bound by L2: 128 x 256 moves 6 bytes for 128 multiply-adds
// where 128 x 128 moves 8. That is 43 operations a byte: 240 to 300 TFLOP/s of an H100, by arithmetic alone.
// Large products in bf16 are made from copies of 2 bytes instead (matmul_bf16_cuda.h). Float32 accuracy is
// bound by the unit in every tile: 102 TFLOP/s there (0.62 of 495, over three), beside 59 of the multiply-add
// units.
#pragma once

#include "kernels/matmul_epilogue_cuda.h"
#include "kernels/matmul_mma_operand_cuda.h"
#include "kernels/matmul_split_cuda.h"

namespace hotloop::cuda {

// kBlocks of them share a multiprocessor: 65536 registers / (kBlocks kThreads) are what a thread has.
template <int WM, int WN, int warps_m, int warps_n, int stages, int blocks>
struct MmaShape {
  static constexpr int kWarpM = WM, kWarpN = WN, kWarpsN = warps_n;
  static constexpr int BM = WM * warps_m, BN = WN * warps_n;
  static constexpr int kThreads = warps_m * warps_n * kWarp, kBlocks = blocks;
  static constexpr int kStages = stages, kStage = (BM + BN) * kMmaDepth;  // floats of a pair of tiles
  static constexpr std::size_t kShared = sizeof(float) * kStages * kStage;
  static constexpr int kLefts = WM / 16, kRights = WN / 8;  // fragments of a warp
  // A piece of k that is read back beside twice as many sums would not find registers.
  static constexpr bool kSplits = kLefts * kRights <= 16;
  static_assert(BM * BN <= kStages * kStage, "the output passes through the stages' memory");
  static_assert(BM <= kThreads, "a thread for each row sum");
};

struct MmaArgs {
  MatrixView a, b;
  EpilogueArgs epilogue;
  Split split;
  const DeviceStep* step;
  float* row_sum;  // (m) or null
  int64 k;
  unsigned tile_rows, tile_columns;
  bool a_wide, b_wide;  // see MmaFetch
  MatmulBatch batch;
};

template <class S>
using MmaSums = float[S::kLefts][S::kRights][4];

// sums += a half of the tiles of one stage
template <class S, class Terms, bool a_deep, bool b_deep>
HL_DEVICE void mma_half(const float* stage, int half, MmaSums<S>& sums) {
  const int first_row = warp_id() / S::kWarpsN * S::kWarpM, first_column = warp_id() % S::kWarpsN * S::kWarpN;
  float y[S::kRights][4];
  MmaTile<b_deep, S::BN>::template load<S::kRights / 4>(stage + S::BM * kMmaDepth, first_column, half, y);
  typename Terms::Right right[S::kRights];
  HL_UNROLL
  for (int j = 0; j < S::kRights; ++j) right[j] = Terms::right(y[j]);
  HL_UNROLL
  for (int i = 0; i < S::kLefts; i += 2) {
    float x[4][4];
    MmaTile<a_deep, S::BM>::template load<1>(stage, first_row + i * 16, half, x);
    Terms::multiply(sums[i], Terms::left(x[0], x[1]), right);
    Terms::multiply(sums[i + 1], Terms::left(x[2], x[3]), right);
  }
}

// sums += the tiles of one stage
template <class S, class Terms, bool a_deep, bool b_deep>
HL_DEVICE void mma_stage(const float* stage, MmaSums<S>& sums) {
  if constexpr (Terms::kLong || S::kLefts * S::kRights > 16) {  // no registers for the second half's loads
    HL_NO_UNROLL
    for (int half = 0; half < 2; ++half) mma_half<S, Terms, a_deep, b_deep>(stage, half, sums);
  } else {
    mma_half<S, Terms, a_deep, b_deep>(stage, 0, sums);
    mma_half<S, Terms, a_deep, b_deep>(stage, 1, sums);
  }
}

// use(stage) for each step of k, in order; fetch(stage) begins the copies of a step's tiles, stages - 1 steps
// ahead.
template <int stages, class Fetch, class Use>
HL_DEVICE void through_stages(int steps, Fetch fetch, Use use) {
  const auto ahead = [&](int stage, bool more) {  // a group of copies each, so that they can be counted
    if (more) fetch(stage);
    cp_commit();
  };
  HL_UNROLL
  for (int s = 0; s < stages - 1; ++s) ahead(s, s < steps);
  int read = 0;
  HL_NO_UNROLL
  for (int left = steps; left > 0; --left) {
    cp_wait<stages - 2>();
    sync();  // the stage to read has landed for all, and all have read the one before it
    ahead(read == 0 ? stages - 1 : read - 1, left > stages - 1);
    use(read);
    read = read + 1 == stages ? 0 : read + 1;
  }
  cp_wait<0>();
  sync();
}

// sums += [begin, end) of k of the tile at (row, column); total += row threadIdx.x of A, if that is wanted
template <class S, class Terms, bool a_deep, bool b_deep>
HL_DEVICE void mma_steps(const MmaArgs& g, int row, int column, int begin, int end, float* shared,
                         MmaSums<S>& sums, bool with_total, float& total) {
  MmaFetch<a_deep, S::BM, S::kThreads> a(moved(g.a, batch_offset(g.batch, g.batch.a)), g.a_wide, row, begin,
                                         end);
  MmaFetch<b_deep, S::BN, S::kThreads> b(moved(g.b, batch_offset(g.batch, g.batch.b)), g.b_wide, column,
                                         begin, end);
  const int steps = (end - begin + kMmaDepth - 1) / kMmaDepth;
  const auto fetch = [&](int stage) {
    a(shared + stage * S::kStage);
    b(shared + stage * S::kStage + S::BM * kMmaDepth);
  };
  through_stages<S::kStages>(steps, fetch, [&](int read) {
    const float* const stage = shared + read * S::kStage;
    if (with_total && threadIdx.x < S::BM)
      total += MmaTile<a_deep, S::BM>::sum_row(stage, static_cast<int>(threadIdx.x));
    mma_stage<S, Terms, a_deep, b_deep>(stage, sums);
  });
}

// The same for either form of either operand. One kernel holds the four loops: its epilogue is there once.
template <class S, class Terms>
HL_DEVICE void mma_sum(const MmaArgs& g, int row, int column, int begin, int end, float* shared,
                       MmaSums<S>& sums, bool with_total, float& total) {
  if (g.a.along_depth) {
    if (g.b.along_depth)
      return mma_steps<S, Terms, true, true>(g, row, column, begin, end, shared, sums, with_total, total);
    return mma_steps<S, Terms, true, false>(g, row, column, begin, end, shared, sums, with_total, total);
  }
  if (g.b.along_depth)
    return mma_steps<S, Terms, false, true>(g, row, column, begin, end, shared, sums, with_total, total);
  mma_steps<S, Terms, false, false>(g, row, column, begin, end, shared, sums, with_total, total);
}

template <class S>
HL_DEVICE bool any_nan(const MmaSums<S>& sums) {
  float all = 0.0f;  // 0 x is NaN for infinities too, which the careful way may find to be finite
  HL_UNROLL
  for (int i = 0; i < S::kLefts; ++i) HL_UNROLL
  for (int j = 0; j < S::kRights; ++j) HL_UNROLL
  for (int e = 0; e < 4; ++e) all += 0.0f * sums[i][j][e];
  return sync_or(all != all);
}

// Through shared memory, as (BM, BN) with quads in the places of a tile of lines along k, and out of it by
// whole lines.
template <class S>
HL_DEVICE void mma_finish(const MmaArgs& g, int row, int column, float* shared, const MmaSums<S>& sums) {
  constexpr int kQuads = S::BN / 4;
  const auto place = [](int r, int quad) { return (r * kQuads + (quad ^ (r / 16 % 2 * 4))) * 4; };
  const int first_row = warp_id() / S::kWarpsN * S::kWarpM, first_column = warp_id() % S::kWarpsN * S::kWarpN;
  HL_UNROLL
  for (int i = 0; i < 2 * S::kLefts; ++i) HL_UNROLL
  for (int j = 0; j < S::kRights / 2; ++j) {
    // row i of a thread is its word pair i % 2 of fragment i / 2; of four fragments of columns it holds
    // columns 4 t ... of the first 16 in one word, of the others in the next
    const auto& v = sums[i / 2];
    const int e = i % 2 * 2 + j % 2, from = j / 2 * 4;
    const int r = first_row + i / 4 * 32 + mma_row(i % 4);
    store4(shared + place(r, first_column / 4 + j * 4 + lane_id() % 4),
           Float4{v[from][e], v[from + 1][e], v[from + 2][e], v[from + 3][e]});
  }
  sync();
  const Epilogue finish(g.epilogue, g.step, batch_offset(g.batch, g.batch.out));
  HL_NO_UNROLL
  for (int q = static_cast<int>(threadIdx.x); q < S::BM * kQuads; q += S::kThreads) {
    const int i = row + q / kQuads, j = column + q % kQuads * 4;
    const int count = at_most_4(g.b.rows - j);
    if (i < g.a.rows && count > 0) finish(i, j, load4(shared + place(q / kQuads, q % kQuads)), count);
  }
}

// Tiles of neighbouring blocks share operands in L2: eight rows of tiles are gone through column by column.
constexpr unsigned kMmaBand = 8;
struct TilePlace {
  unsigned row, column;
};
HL_DEVICE TilePlace mma_place(unsigned tile, unsigned rows, unsigned columns) {
  const unsigned first = tile / (kMmaBand * columns) * kMmaBand, i = tile % (kMmaBand * columns);
  const unsigned height = rows - first < kMmaBand ? rows - first : kMmaBand;
  return {first + i % height, i / height};
}

template <class S, class Terms>
HL_KERNEL HL_BOUNDS(S::kThreads, S::kBlocks) matmul_mma_tiles(MmaArgs g) {
  HL_DYNAMIC_SHARED(float, shared);
  const unsigned tile = blockIdx.x;
  const TilePlace place = mma_place(tile, g.tile_rows, g.tile_columns);
  // m, n and k are below 2^30
  const auto row = static_cast<int>(place.row) * S::BM, column = static_cast<int>(place.column) * S::BN;
  const auto piece = static_cast<int>(blockIdx.y), begin = piece * static_cast<int>(g.split.depth);
  const int64 after = begin + g.split.depth;
  const auto end = static_cast<int>(after < g.k ? after : g.k);
  MmaSums<S> sums = {};
  const bool with_total = g.row_sum != nullptr && column == 0;
  float total = 0.0f;
  mma_sum<S, Terms>(g, row, column, begin, end, shared, sums, with_total, total);
  if constexpr (requires { typename Terms::Careful; }) {
    // Infinities must not become NaN. They are rare, and not worth an instruction where numbers are split.
    if (any_nan<S>(sums)) {
      HL_UNROLL
      for (int i = 0; i < S::kLefts; ++i) HL_UNROLL
      for (int j = 0; j < S::kRights; ++j) HL_UNROLL
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
      mma_sum<S, typename Terms::Careful>(g, row, column, begin, end, shared, sums, false, total);
    }
  }
  if constexpr (S::kSplits) {
    auto& flat = reinterpret_cast<float (&)[S::kLefts * S::kRights * 4]>(sums);
    if (g.split.pieces > 1 && !add_pieces<S::kThreads>(g.split, split_tile(), piece, flat, total)) return;
  }
  const int64 mine = int64{row} + threadIdx.x;
  if (with_total && threadIdx.x < S::BM && mine < g.a.rows) g.row_sum[mine] = total;
  mma_finish<S>(g, row, column, shared, sums);
}

}  // namespace hotloop::cuda
