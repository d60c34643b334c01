// SPDX-License-Identifier: Apache-2.0
// The product by tiles on the multiply-add units: a block sums a tile of the output over k, a thread TM x TN
// of its elements in registers, from tiles of A and B in shared memory, two of each: one is read, the next
// one is filled.
//
// Floor: 2 m n k operations at 128 fused multiply-adds a clock and multiprocessor; an H100 SXM, 132 of them
// at 1.755 GHz, does 59 TFLOP/s at the most. A thread's TM x TN products take (TM + TN) floats from shared
// memory: for 8 x 8 a quarter of a float each. A warp reads them as four words of 16 bytes for A and eight
// for B, the others get copies: that is at most two wavefronts an access, 8 a warp and step of k beside the
// 16 clocks that its 64 multiply-adds keep a quarter of the multiprocessor busy. From global memory a tile
// of 128 x 128 takes 8 bytes for 128 multiply-adds a thread pair: 32 operations a byte, which L2 holds.
#pragma once

#include "kernels/matmul_epilogue_cuda.h"
#include "kernels/matmul_operand_cuda.h"
#include "kernels/matmul_split_cuda.h"

namespace hotloop::cuda {

// kBlocks of them share a multiprocessor: 65536 registers / (kBlocks kThreads) are what a thread has.
template <int TM_, int TN_, int D_, int warps_m, int warps_n, int lanes_m, int blocks>
struct Tile {
  static constexpr int TM = TM_, TN = TN_, D = D_;
  static constexpr int kLanesM = lanes_m, kLanesN = kWarp / lanes_m, kWarpsN = warps_n;
  static constexpr int kWarpM = lanes_m * TM, kWarpN = kLanesN * TN;  // of one warp
  static constexpr int BM = warps_m * kWarpM, BN = warps_n * kWarpN;
  static constexpr int kThreads = warps_m * warps_n * kWarp, kBlocks = blocks;
  using LoaderA = TileLoader<BM, D, kThreads>;
  using LoaderB = TileLoader<BN, D, kThreads>;
  static constexpr int kStage = D * (LoaderA::kStride + LoaderB::kStride);  // floats of a pair of tiles
  // Rows that are finished together: one of each thread.
  static constexpr int kSlabRows = BM / TM, kSlabStride = BN + 4;
  static constexpr int kShared = 2 * kStage > kSlabRows* kSlabStride ? 2 * kStage : kSlabRows * kSlabStride;
  static_assert(BM <= kThreads, "a thread for each row sum");
  static_assert(kShared * 4 <= 48 * 1024);
};

using Tile128x128 = Tile<8, 8, 8, 4, 2, 4, 2>;  // 256 threads of 128 registers, 16 warps a multiprocessor
using Tile64x64 = Tile<8, 4, 16, 2, 2, 4, 4>;   // 128 threads of 128 registers, 16 warps
using Tile32x32 = Tile<4, 4, 16, 2, 1, 4, 10>;  // 64 threads of 96 registers, 20 warps
using Tile128x16 = Tile<4, 4, 16, 4, 1, 8, 5>;  // 128 threads of 96 registers, 20 warps
using Tile16x128 = Tile<4, 4, 16, 1, 4, 4, 5>;

struct TileArgs {
  MatrixView a, b;
  EpilogueArgs epilogue;
  Split split;
  const DeviceStep* step;
  float* row_sum;  // (m) or null
  int64 k;
  unsigned tile_columns;
  MatmulBatch batch;
};

// Where a thread's elements are: row i of its TM, in groups of four that are kLanesM of them apart.
template <class T>
HL_DEVICE int tile_row(int slab_row, int i) {
  return slab_row / T::kLanesM * T::kWarpM + i / 4 * (4 * T::kLanesM) + slab_row % T::kLanesM * 4 + i % 4;
}
template <class T>
HL_DEVICE int my_slab_row() {
  return warp_id() / T::kWarpsN * T::kLanesM + lane_id() / T::kLanesN;
}
template <class T>
HL_DEVICE int my_column(int quad) {
  return warp_id() % T::kWarpsN * T::kWarpN + quad * (4 * T::kLanesN) + lane_id() % T::kLanesN * 4;
}

// sums (TM, TN) += the tiles of one stage; total += the row threadIdx.x of A, if that is wanted.
template <class T>
HL_DEVICE void multiply_stage(const float* stage, float (&sums)[T::TM * T::TN], bool with_total,
                              float& total) {
  const float* const a = stage + tile_row<T>(my_slab_row<T>(), 0);
  const float* const b = stage + T::D * T::LoaderA::kStride + my_column<T>(0);
  HL_UNROLL
  for (int p = 0; p < T::D; ++p) {
    float x[T::TM], y[T::TN];
    HL_UNROLL
    for (int i = 0; i < T::TM; i += 4) {
      const Float4 v = load4(a + p * T::LoaderA::kStride + i * T::kLanesM);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
    HL_UNROLL
    for (int j = 0; j < T::TN; j += 4) {
      const Float4 v = load4(b + p * T::LoaderB::kStride + j * T::kLanesN);
      y[j] = v.x, y[j + 1] = v.y, y[j + 2] = v.z, y[j + 3] = v.w;
    }
    HL_UNROLL
    for (int i = 0; i < T::TM; ++i) HL_UNROLL
    for (int j = 0; j < T::TN; ++j) sums[i * T::TN + j] = ::fmaf(x[i], y[j], sums[i * T::TN + j]);
  }
  if (with_total && threadIdx.x < T::BM)
    for (int p = 0; p < T::D; ++p) total += stage[p * T::LoaderA::kStride + static_cast<int>(threadIdx.x)];
}

// sums over [begin, end) of k of the tile at (row, column)
template <class T>
HL_DEVICE void multiply_tile(const TileArgs& g, int64 row, int64 column, int64 begin, int64 end,
                             float* shared, float (&sums)[T::TM * T::TN], float& total) {
  const bool with_total = g.row_sum != nullptr && column == 0;
  typename T::LoaderA a(moved(g.a, batch_offset(g.batch, g.batch.a)), row, begin);
  typename T::LoaderB b(moved(g.b, batch_offset(g.batch, g.batch.b)), column, begin);
  if (begin >= end) return;
  const auto put = [&](int which) {
    a.put(shared + which * T::kStage);
    b.put(shared + which * T::kStage + T::D * T::LoaderA::kStride);
  };
  a.fetch(end - begin);
  b.fetch(end - begin);
  put(0);
  sync();
  int which = 0;
  HL_NO_UNROLL
  for (int64 left = end - begin; left > 0; left -= T::D) {
    const bool more = left > T::D;
    if (more) {
      a.fetch(left - T::D);
      b.fetch(left - T::D);
    }
    multiply_stage<T>(shared + which * T::kStage, sums, with_total, total);
    which ^= 1;
    if (more) put(which);  // the other pair: its readers passed the last barrier
    sync();
  }
}

// The epilogue, a row of each thread at a time: into the slab (kSlabRows, BN) and out of it by quads.
template <class T>
HL_DEVICE void finish_tile(const TileArgs& g, int64 row, int64 column, float* slab,
                           const float (&sums)[T::TM * T::TN]) {
  constexpr int kQuads = T::BN / 4;
  const Epilogue finish(g.epilogue, g.step, batch_offset(g.batch, g.batch.out));
  const int slab_row = my_slab_row<T>();
  HL_NO_UNROLL
  for (int step = 0; step < T::TM; ++step) {
    HL_UNROLL
    for (int i = 0; i < T::TM; ++i) {  // registers have no index at run time
      if (i != step) continue;
      HL_UNROLL
      for (int j = 0; j < T::TN; j += 4) {
        const float* const v = sums + i * T::TN + j;
        store4(slab + slab_row * T::kSlabStride + my_column<T>(j / 4), Float4{v[0], v[1], v[2], v[3]});
      }
    }
    sync();
    HL_NO_UNROLL
    for (int q = static_cast<int>(threadIdx.x); q < T::kSlabRows * kQuads; q += T::kThreads) {
      const int64 i = row + tile_row<T>(q / kQuads, step), j = column + q % kQuads * 4;
      const int count = at_most_4(g.b.rows - j);
      if (i < g.a.rows && count > 0)
        finish(i, j, load4(slab + q / kQuads * T::kSlabStride + q % kQuads * 4), count);
    }
    sync();
  }
}

template <class T>
HL_KERNEL HL_BOUNDS(T::kThreads, T::kBlocks) matmul_tiles(TileArgs g) {
  HL_SHARED(float, shared, [T::kShared]);
  const unsigned tile = blockIdx.x;  // 32 bits: a division of 64 is a hundred instructions
  const int64 row = int64{tile / g.tile_columns} * T::BM, column = int64{tile % g.tile_columns} * T::BN;
  const int piece = static_cast<int>(blockIdx.y);
  const int64 begin = piece * g.split.depth, after = begin + g.split.depth;
  float sums[T::TM * T::TN] = {};
  float total = 0.0f;
  multiply_tile<T>(g, row, column, begin, after < g.k ? after : g.k, shared, sums, total);
  if (g.split.pieces > 1 && !add_pieces<T::kThreads>(g.split, split_tile(), piece, sums, total)) return;
  const int64 mine = row + threadIdx.x;
  if (g.row_sum != nullptr && column == 0 && threadIdx.x < T::BM && mine < g.a.rows) g.row_sum[mine] = total;
  finish_tile<T>(g, row, column, shared, sums);
}

}  // namespace hotloop::cuda
