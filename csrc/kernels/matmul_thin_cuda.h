// SPDX-License-Identifier: Apache-2.0
// Products of which one operand is thin: B of few columns (a network's last layer) or A of few rows (one
// sample, or that layer's weight gradient). Tiles would leave most of the device idle: there are few of
// them, and each has a long way along k. Here a thread sums kThin outputs of one row of the other, wide,
// operand, over a part of k, so that hundreds of threads share a row's or a few rows' k. Which part depends
// on how the wide operand lies, so that a warp reads 128 bytes of it at once:
//
//   along k      a warp for each of 8 rows, a lane for every 32nd step of k; the lanes' sums are then added
//                up in a butterfly that leaves each lane pair one output: 31 exchanges for 16 sums
//   across k     a lane for each of 32 rows, a warp for every 8th step; the warps' sums meet in shared memory
//
// The thin operand goes through shared memory, kDepth steps at a time, read as quads: 20 floats from step to
// step put the quads of eight lanes into 32 banks. Floor: the wide operand is read once, 4 bytes for kThin
// multiply-adds; below some 100 KB of it, latencies: two barriers and a load, 1 to 2 microseconds.
//
// The sums over k of A's rows come from ones: a column of ones beside a thin B, or a row beside a wide B.
#pragma once

#include "kernels/matmul_epilogue_cuda.h"
#include "kernels/matmul_operand_cuda.h"
#include "kernels/matmul_split_cuda.h"

namespace hotloop::cuda {

constexpr int kThin = 16;    // columns of B, or rows of A
constexpr int kDepth = 128;  // steps of k at a time

struct ThinArgs {
  MatrixView wide, thin;
  EpilogueArgs epilogue;
  Split split;
  const DeviceStep* step;
  float* row_sum;  // (m) or null
  int64 k;
  bool thin_b;  // else A is the thin one
  MatmulBatch batch;
};

template <bool along_depth>
struct ThinShape {
  static constexpr int kThreads = 256, kWarps = kThreads / kWarp;
  static constexpr int kRows = along_depth ? kWarps : kWarp;  // of the wide operand, a block
  static constexpr int kStep = along_depth ? kWarp : kWarps;  // from one of a thread's steps of k to the next
  static constexpr int kSteps = kDepth / kStep;
  using Loader = TileLoader<kThin, kDepth, kThreads>;
  static constexpr int kStage = kDepth * Loader::kStride;
  static constexpr int kOutStride = kRows + 1;  // of the block's sums (kThin, kRows)

  HL_DEVICE static int row() { return along_depth ? warp_id() : lane_id(); }
  HL_DEVICE static int first_step() { return along_depth ? lane_id() : warp_id(); }
};

// The wide operand's elements of one row at this thread's steps, kDepth steps of k after the other: zeros
// past k, ones all along the row after the last.
template <class S>
class WideReader {
 public:
  HL_DEVICE WideReader(const MatrixView& wide, int64 row, int64 depth)
      : at_(row < wide.rows ? wide.at(row, depth + S::first_step()) : wide.data),
        stride_(wide.stride_p),
        there_(row < wide.rows),
        other_(row == wide.rows ? 1.0f : 0.0f) {}

  // `left` of the next kDepth steps are there.
  HL_DEVICE void fetch(int64 left, float (&x)[S::kSteps]) {
    HL_UNROLL
    for (int i = 0; i < S::kSteps; ++i)
      x[i] = there_ && S::first_step() + i * S::kStep < left ? at_[i * S::kStep * stride_] : other_;
    at_ += kDepth * stride_;
  }

 private:
  const float* at_;
  int64 stride_;
  bool there_;
  float other_;
};

// sums (kThin) of one row over this thread's steps in [begin, end)
template <class S>
HL_DEVICE void sum_thin(const ThinArgs& g, int64 row, int64 begin, int64 end, float* shared,
                        float (&sums)[kThin]) {
  if (begin >= end) return;
  const int64 of_a = batch_offset(g.batch, g.batch.a), of_b = batch_offset(g.batch, g.batch.b);
  typename S::Loader thin(moved(g.thin, g.thin_b ? of_b : of_a), 0, begin);
  // a column of ones is always there in row_sum's place: it is fetched as zeros, and set when put
  const int ones = g.thin_b && g.row_sum != nullptr ? static_cast<int>(g.thin.rows) : -1;
  const int used = static_cast<int>(g.thin.rows) + (ones < 0 ? 0 : 1);  // the other sums stay zero
  const auto put = [&](float* stage) {
    thin.put(stage);
    if (ones < 0) return;
    sync();
    for (int p = static_cast<int>(threadIdx.x); p < kDepth; p += S::kThreads)
      stage[p * S::Loader::kStride + ones] = 1.0f;
  };
  WideReader<S> wide(moved(g.wide, g.thin_b ? of_a : of_b), row, begin);
  float x[S::kSteps], next[S::kSteps];
  thin.fetch(end - begin);
  wide.fetch(end - begin, next);
  put(shared);
  sync();
  int which = 0;
  HL_NO_UNROLL
  for (int64 p = begin; p < end; p += kDepth) {
    const bool more = p + kDepth < end;
    HL_UNROLL
    for (int i = 0; i < S::kSteps; ++i) x[i] = next[i];
    if (more) {
      thin.fetch(end - p - kDepth);
      wide.fetch(end - p - kDepth, next);
    }
    const float* const stage = shared + which * S::kStage;
    HL_UNROLL
    for (int i = 0; i < S::kSteps; ++i) {
      const float* const y = stage + (S::first_step() + i * S::kStep) * S::Loader::kStride;
      HL_UNROLL
      for (int j = 0; j < kThin; j += 4) {
        if (j >= used) break;
        const Float4 v = load4(y + j);
        sums[j] = ::fmaf(x[i], v.x, sums[j]);
        sums[j + 1] = ::fmaf(x[i], v.y, sums[j + 1]);
        sums[j + 2] = ::fmaf(x[i], v.z, sums[j + 2]);
        sums[j + 3] = ::fmaf(x[i], v.w, sums[j + 3]);
      }
    }
    which ^= 1;
    if (more) put(shared + which * S::kStage);
    sync();
  }
}

// A round of adding up over a warp: of 2 half sums a lane gives one half to the lane 2 half away and adds
// what it gets to the other. `mine` grows by the number of the first sum that is left.
template <int half>
HL_DEVICE void exchange(float (&sums)[kThin], int& mine) {
  const bool upper = (lane_id() & (2 * half)) != 0;
  HL_UNROLL
  for (int i = 0; i < half; ++i) {
    const float give = upper ? sums[i] : sums[i + half];
    sums[i] = (upper ? sums[i + half] : sums[i]) + shfl_xor(give, 2 * half);
  }
  mine += upper ? half : 0;
}

// out (kThin, kRows) = each lane's sums, added up over the warp
template <class S>
HL_DEVICE void join_lanes(float (&sums)[kThin], float* out) {
  static_assert(kThin == 16 && kWarp == 32);
  int mine = 0;
  exchange<8>(sums, mine);
  exchange<4>(sums, mine);
  exchange<2>(sums, mine);
  exchange<1>(sums, mine);
  const float sum = sums[0] + shfl_xor(sums[0], 1);
  if (lane_id() % 2 == 0) out[mine * S::kOutStride + warp_id()] = sum;
}

// out (kThin, kRows) = the warps' sums, added up in the order of warps; all (kWarps, kThin, kRows).
template <class S>
HL_DEVICE void join_warps(const float (&sums)[kThin], float* all, float* out) {
  constexpr int kSums = kThin * S::kRows;
  HL_UNROLL
  for (int j = 0; j < kThin; ++j) all[warp_id() * kSums + j * S::kRows + lane_id()] = sums[j];
  sync();
  for (int e = static_cast<int>(threadIdx.x); e < kSums; e += S::kThreads) {
    float sum = 0.0f;
    HL_UNROLL
    for (int w = 0; w < S::kWarps; ++w) sum += all[w * kSums + e];
    out[e / S::kRows * S::kOutStride + e % S::kRows] = sum;
  }
}

// Four neighbours in a row of the product, or of what is beside it: the sums of A's rows.
HL_DEVICE void finish_quad(const ThinArgs& g, const Epilogue& finish, int64 wide, int thin,
                           const float (&v)[4]) {
  const int64 i = g.thin_b ? wide : thin, j = g.thin_b ? thin : wide;
  const int64 m = g.thin_b ? g.wide.rows : g.thin.rows, n = g.thin_b ? g.thin.rows : g.wide.rows;
  if (i >= m) return;
  const int count = at_most_4(n - j);
  if (count > 0) finish(i, j, Float4{v[0], v[1], v[2], v[3]}, count);
  HL_UNROLL
  for (int e = 0; e < 4; ++e)
    if (g.row_sum != nullptr && j + e == n) g.row_sum[i] = v[e];
}

template <bool along_depth>
HL_KERNEL HL_BOUNDS(256, 2) matmul_thin(ThinArgs g) {
  using S = ThinShape<along_depth>;
  constexpr int kQuads = kThin * S::kRows / 4;
  static_assert(kQuads <= S::kThreads && S::kWarps * kThin * S::kRows <= 2 * S::kStage);
  HL_SHARED(float, stages, [2 * S::kStage]);
  HL_SHARED(float, out, [kThin * S::kOutStride]);
  const int64 block = int64{blockIdx.x} * S::kRows;
  const int piece = static_cast<int>(blockIdx.y), me = static_cast<int>(threadIdx.x);
  const int64 begin = piece * g.split.depth, after = begin + g.split.depth;
  float sums[kThin] = {};
  sum_thin<S>(g, block + S::row(), begin, after < g.k ? after : g.k, stages, sums);
  if constexpr (along_depth) {
    join_lanes<S>(sums, out);
  } else {
    join_warps<S>(sums, stages, out);
  }
  sync();
  // quads along the rows of the product: the thin index varies in them if B is thin, else the wide one
  const int along = g.thin_b ? kThin / 4 : S::kRows / 4;
  const int thin = g.thin_b ? me % along * 4 : me / along, wide = g.thin_b ? me / along : me % along * 4;
  float quad[4] = {}, none = 0.0f;
  HL_UNROLL
  for (int e = 0; e < 4; ++e)
    if (me < kQuads)
      quad[e] = out[(g.thin_b ? thin + e : thin) * S::kOutStride + (g.thin_b ? wide : wide + e)];
  if (g.split.pieces > 1 && !add_pieces<S::kThreads>(g.split, split_tile(), piece, quad, none)) return;
  if (me < kQuads)
    finish_quad(g, Epilogue(g.epilogue, g.step, batch_offset(g.batch, g.batch.out)), block + wide, thin,
                quad);
}

}  // namespace hotloop::cuda
