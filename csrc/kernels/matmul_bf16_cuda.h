// SPDX-License-Identifier: Apache-2.0
// Large products in bf16: both operands are copied once, rounded and with lines along k, and tiles of 128 x
// 256 are multiplied from the copies. A tile of float32 is bound by L2, 61 clocks for a step of k at 25 bytes
// a clock and multiprocessor; of copies a step is half of that:
//
//   L2       (128 + 256) 2 bytes                    31 clocks
//   shared   (8 (64 + 64) + 128 + 256) 2 bytes      22   at 128 bytes a clock
//   units    128 x 256 multiply-adds                32   at 1024 a clock (A100), 26 at H100's 1280
//
// The copies are 6 bytes of memory an element. 4096^3 on an H100, all at these rates: 67 us for the copies,
// 278 us for the product, 398 TFLOP/s, beside 249 without copies. cuBLAS, which is handed bf16, reaches some
// 716: 0.56 is what this design can be at best, and 0.8 of its own bounds is 0.45. More takes Hopper's own
// instructions, whose tiles read shared memory less and share what they read of L2.
//
// The copies' lines are read by ldmatrix with rows in the order of mma_row(), so that sums lie in registers
// as those of matmul_mma_tile_cuda.h do, and are finished by the same function.
#pragma once

#include "kernels/matmul_mma_tile_cuda.h"

namespace hotloop::cuda {

constexpr int kCopyDepth = 64;               // steps of k of a tile: a line of 128 bytes
constexpr int kCopyWords = kCopyDepth / 2;   // of two numbers; they are moved as floats are
constexpr int kCopyChunks = kCopyWords / 4;  // of 16 bytes
constexpr int kConvertTile = 64;             // rows and steps of k that a block converts
constexpr int kMmaK = 16;                    // steps of k of an instruction

// Where the copies lie in the workspace: A (m, depth), B (n, depth), sums of A's rows in pieces of k.
struct Bf16Copies {
  float *a, *b, *row_parts;
  int64 depth, parts;  // k, in whole tiles; pieces of the row sums, if they are wanted
  std::size_t bytes;   // in all

  Bf16Copies(const MatmulArgs<float>& x, void* workspace)
      : a(reinterpret_cast<float*>(static_cast<char*>(workspace) + kWorkspaceCounters)),
        depth(ceil_div(x.k, kCopyDepth) * kCopyDepth),
        parts(x.row_sum == nullptr ? 0 : depth / kConvertTile),
        bytes(static_cast<std::size_t>((x.m + x.n) * (depth / 2) + parts * x.m) * sizeof(float)) {
    b = a + x.m * (depth / 2);
    row_parts = b + x.n * (depth / 2);
  }
};

// out (rows, depth) = x (rows, k) rounded, zeros behind k; parts (depth / 64, rows), unless null: sums of x
// over 64 steps of k. A block takes 64 x 64 through shared memory: x may lie either way.
HL_KERNEL HL_BOUNDS(kThreads, 4)
    to_bf16(float* out, float* parts, MatrixView x, int64 k, int64 depth, unsigned tiles) {
  HL_SHARED(float, tile, [kConvertTile][kConvertTile + 1]);
  constexpr int kQuads = kConvertTile / 4;
  const int64 first = int64{blockIdx.x / tiles} * kConvertTile,
              begin = int64{blockIdx.x % tiles} * kConvertTile;
  const auto t = static_cast<int>(threadIdx.x);
  Float4 quad[kConvertTile * kQuads / kThreads];  // all on their way before the first is put down
  const auto row_of = [&](int i) {
    return x.along_depth ? (t + i * kThreads) / kQuads : (t + i * kThreads) % kQuads * 4;
  };
  const auto step_of = [&](int i) {
    return x.along_depth ? (t + i * kThreads) % kQuads * 4 : (t + i * kThreads) / kQuads;
  };
  HL_UNROLL
  for (int i = 0; i < kConvertTile * kQuads / kThreads; ++i) {
    const int64 r = first + row_of(i), p = begin + step_of(i);
    const bool there = r < x.rows && p < k;
    const int count = !there ? 0 : at_most_4(x.along_depth ? k - p : x.rows - r);
    quad[i] = load_quad(there ? x.at(r, p) : x.data, x.unit(), count, x.aligned);
  }
  HL_UNROLL
  for (int i = 0; i < kConvertTile * kQuads / kThreads; ++i) {
    float* const to = &tile[row_of(i)][step_of(i)];
    const int step = x.along_depth ? 1 : kConvertTile + 1;
    to[0] = quad[i].x, to[step] = quad[i].y, to[2 * step] = quad[i].z, to[3 * step] = quad[i].w;
  }
  sync();
  HL_UNROLL
  for (int i = 0; i < kConvertTile * kCopyChunks / kThreads; ++i) {
    const int r = (t + i * kThreads) / kCopyChunks, chunk = t % kCopyChunks;
    const float* const v = &tile[r][chunk * 8];
    const std::uint32_t words[4] = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                                    pack_bf16(v[6], v[7])};
    if (first + r < x.rows) store_words(out + (first + r) * (depth / 2) + begin / 2 + chunk * 4, words);
  }
  if (parts == nullptr || t >= kConvertTile || first + t >= x.rows) return;
  float sum = 0.0f;
  for (int p = 0; p < kConvertTile; ++p) sum += tile[t][p];
  parts[begin / kConvertTile * x.rows + first + t] = sum;
}

struct Bf16Args {
  MmaArgs product;  // its operands' rows, and what follows the sums
  const float *a, *b, *row_parts;
  int64 depth, parts;
};

// A word of a tile's line. The eight lines that ldmatrix reads together are 4 apart and 16 further: their
// chunks lie in different places of 128 bytes.
HL_DEVICE int copy_place(int line, int chunk) {
  return (line * kCopyChunks + (chunk ^ (line / 4 % kCopyChunks))) * 4;
}

// Copies one tile after the other along k: `lines` of them are there, the others are zeros.
template <int R, int kThreads>
class CopyFetch {
  static constexpr int kStep = kThreads / kCopyChunks, kMine = R / kStep;

 public:
  HL_DEVICE CopyFetch(const float* from, int64 row, int64 rows, int64 depth)
      : line_(static_cast<int>(threadIdx.x) / kCopyChunks),
        chunk_(static_cast<int>(threadIdx.x) % kCopyChunks),
        left_(rows - row < R ? static_cast<int>(rows - row) : R),
        step_(kStep * (depth / 2)),
        from_(from + (row + line_) * (depth / 2) + chunk_ * 4) {}

  HL_DEVICE void operator()(float* tile) {
    HL_UNROLL
    for (int q = 0; q < kMine; ++q) {
      const int line = line_ + q * kStep;
      copy_async<16>(tile + copy_place(line, chunk_), from_ + q * step_, line < left_);
    }
    from_ += kCopyWords;
  }

 private:
  int line_, chunk_, left_;
  int64 step_;
  const float* from_;
};

// This lane's line among the eight, and its place in a pair of lines and a pair of chunks: which of the four
// matrices of an ldmatrix it names a line of.
struct CopyLane {
  int line, chunk, turned;

  // A: rows s and s + 1 of the first chunk, then of the second. B: both chunks of column s, then of s + 1.
  HL_DEVICE CopyLane(int first, bool of_a) {
    const int g = lane_id() % 8, low = lane_id() / 8 % 2, high = lane_id() / 16;
    line = first + g % 2 * 16 + g / 2 * 4 + (of_a ? low : high);
    chunk = of_a ? high : low;
    turned = g % 2 * 4 + g / 2;  // line / 4 % 8, for `first` is a multiple of 32
  }
  HL_DEVICE const float* at(const float* tile, int more_lines, int first_chunk) const {
    return tile + ((line + more_lines) * kCopyChunks + ((first_chunk + chunk) ^ turned)) * 4;
  }
};

// sums += the tiles of one stage
template <class S>
HL_DEVICE void copy_stage(const float* stage, const CopyLane& a, const CopyLane& b, MmaSums<S>& sums) {
  const float* const of_b = stage + S::BM * kCopyWords;
  HL_UNROLL
  for (int chunk = 0; chunk < kCopyChunks; chunk += 2) {
    std::uint32_t right[S::kRights / 2][4];  // of two fragments each
    HL_UNROLL
    for (int j = 0; j < S::kRights; j += 2) ldmatrix_x4(right[j / 2], b.at(of_b, j / 4 * 32 + j % 4, chunk));
    HL_UNROLL
    for (int i = 0; i < S::kLefts; ++i) {
      std::uint32_t left[4];
      ldmatrix_x4(left, a.at(stage, i / 2 * 32 + i % 2 * 2, chunk));
      HL_UNROLL
      for (int j = 0; j < S::kRights; ++j) {
        const std::uint32_t pair[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
        mma_bf16(sums[i][j], left, pair);
      }
    }
  }
}

template <class S>
HL_KERNEL HL_BOUNDS(S::kThreads, S::kBlocks) matmul_bf16_tiles(Bf16Args g) {
  constexpr int kStage = (S::BM + S::BN) * kCopyWords;
  static_assert(sizeof(float) * S::kStages * kStage == S::kShared);
  HL_DYNAMIC_SHARED(float, shared);
  const MmaArgs& p = g.product;
  const TilePlace place = mma_place(blockIdx.x, p.tile_rows, p.tile_columns);
  const auto row = static_cast<int>(place.row) * S::BM, column = static_cast<int>(place.column) * S::BN;
  CopyFetch<S::BM, S::kThreads> a(g.a, row, p.a.rows, g.depth);
  CopyFetch<S::BN, S::kThreads> b(g.b, column, p.b.rows, g.depth);
  const CopyLane of_a(warp_id() / S::kWarpsN * S::kWarpM, true),
      of_b(warp_id() % S::kWarpsN * S::kWarpN, false);
  const auto steps = static_cast<int>(g.depth / kCopyDepth);
  const auto fetch = [&](int stage) {
    a(shared + stage * kStage);
    b(shared + stage * kStage + S::BM * kCopyWords);
  };
  MmaSums<S> sums = {};
  through_stages<S::kStages>(steps, fetch,
                             [&](int stage) { copy_stage<S>(shared + stage * kStage, of_a, of_b, sums); });
  const int64 mine = int64{row} + threadIdx.x;
  if (p.row_sum != nullptr && column == 0 && threadIdx.x < S::BM && mine < p.a.rows) {
    float total = 0.0f;
    for (int64 part = 0; part < g.parts; ++part) total += g.row_parts[part * p.a.rows + mine];
    p.row_sum[mine] = total;
  }
  mma_finish<S>(p, row, column, shared, sums);
}

}  // namespace hotloop::cuda
