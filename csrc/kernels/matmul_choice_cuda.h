// SPDX-License-Identifier: Apache-2.0
// Which kernel multiplies, and in how many pieces of k: whatever a count of clocks says is over first. The
// count looks at shapes and the number of multiprocessors alone, so a shape has one way on a device.
#pragma once

#include "kernels/matmul_split_cuda.h"
#include "kernels/matmul_tile_cuda.h"

namespace hotloop::cuda {

enum class MatmulKernel { k128x128, k64x64, k32x32, k128x16, k16x128 };

struct MatmulWay {
  MatmulKernel kernel = MatmulKernel::k32x32;
  int pieces = 1;
  int64 depth = 0;           // of a piece
  int64 partial_floats = 0;  // of all pieces of all tiles
  std::size_t workspace() const {
    return pieces > 1 ? static_cast<std::size_t>(partial_floats) * sizeof(float) : 0;
  }
};

// What is known of a kernel's speed, in clocks a step of k. `full`: multiply-adds of a tile at 128 a clock,
// over the share of the peak that tiles of this size are known to reach when a multiprocessor is full of
// them. `alone`: one block by itself, whose few warps wait for shared memory and for each other. Both are
// estimates to be measured.
struct TileSpeed {
  MatmulKernel kernel;
  int64 bm, bn, threads;
  double full, alone;
};

template <class T>
constexpr TileSpeed speed(MatmulKernel kernel, double share, double alone) {
  return {kernel, T::BM, T::BN, T::kThreads, T::BM * T::BN / 128.0 / share, alone};
}

constexpr TileSpeed kTileSpeeds[] = {
    speed<Tile128x128>(MatmulKernel::k128x128, 0.90, 160.0),
    speed<Tile64x64>(MatmulKernel::k64x64, 0.80, 60.0),
    speed<Tile32x32>(MatmulKernel::k32x32, 0.60, 28.0),
    speed<Tile128x16>(MatmulKernel::k128x16, 0.55, 34.0),
    speed<Tile16x128>(MatmulKernel::k16x128, 0.55, 34.0),
};

// Clocks before the first product of a block: its launch, and the first tile's way from memory.
constexpr double kStartClocks = 1500.0;
// Joining pieces: a fence and a counter, then the pieces, by and by: see add_pieces.
constexpr double kJoinClocks = 1200.0, kPieceClocks = 250.0, kFloatsPerClock = 16.0;
// A piece of k below this is all start.
constexpr int64 kLeastDepth = 64;
constexpr int kMostPieces = 64;

inline double clocks_of(const TileSpeed& t, int64 tiles, int64 pieces, int64 depth,
                        const DeviceTraits& traits) {
  const double rounds = static_cast<double>(ceil_div(tiles * pieces, traits.multiprocessors));
  const double step = rounds * t.full > t.alone ? rounds * t.full : t.alone;
  const double area = static_cast<double>(t.bm * t.bn);
  const double finish = rounds * area / kFloatsPerClock;
  const double join =
      pieces == 1 ? 0.0 : kJoinClocks + static_cast<double>(pieces) * (kPieceClocks + area / kFloatsPerClock);
  return kStartClocks + static_cast<double>(depth) * step + finish + join;
}

inline MatmulWay way_of(const MatmulArgs<float>& a, const DeviceTraits& traits) {
  MatmulWay best;
  double least = -1.0;
  for (const TileSpeed& t : kTileSpeeds) {
    const int64 tiles = ceil_div(a.m, t.bm) * ceil_div(a.n == 0 ? 1 : a.n, t.bn);
    for (int pieces = 1; pieces <= kMostPieces; pieces += pieces < 8 ? 1 : pieces / 4) {
      const int64 depth = ceil_div(ceil_div(a.k, pieces), 16) * 16;
      if (pieces > 1 && (depth < kLeastDepth || tiles > kMostSplitTiles)) break;
      const double clocks = clocks_of(t, tiles, pieces, depth, traits);
      if (least >= 0.0 && clocks >= least) continue;
      least = clocks;
      const int used = static_cast<int>(depth == 0 ? 1 : ceil_div(a.k, depth));
      best = {t.kernel, used, depth, tiles * used * (t.bm * t.bn + t.threads)};
    }
  }
  return best;
}

}  // namespace hotloop::cuda
