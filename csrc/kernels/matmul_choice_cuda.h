// SPDX-License-Identifier: Apache-2.0
// Which kernel multiplies, and in how many pieces of k: whatever a count of clocks says is over first. The
// count looks at shapes, strides and the number of multiprocessors alone, so a call has one way on a device.
#pragma once

#include "kernels/matmul_split_cuda.h"
#include "kernels/matmul_thin_cuda.h"
#include "kernels/matmul_tile_cuda.h"

namespace hotloop::cuda {

enum class MatmulKernel { k128x128, k64x64, k32x32, k128x16, k16x128, kThinA, kThinB };

struct MatmulWay {
  MatmulKernel kernel = MatmulKernel::k32x32;
  int64 tiles = 0;  // blocks of each piece, of all matrices of a batch
  int pieces = 1;
  int64 depth = 0;            // of a piece
  int64 floats_of_piece = 0;  // what a block leaves of it
  std::size_t workspace() const {
    return pieces > 1 ? static_cast<std::size_t>(tiles * pieces * floats_of_piece) * sizeof(float) : 0;
  }
};

// What is known of a kernel's speed, in clocks a step of k. `full`: the multiply-adds of a block's outputs at
// 128 a clock, over the share of the peak that blocks of this kind reach when they fill a multiprocessor.
// `alone`: one block by itself, whose few warps wait for shared memory and for each other. Shares and `alone`
// are estimates: the order they put the kernels in is what matters.
struct KernelSpeed {
  MatmulKernel kernel;
  int64 rows, columns, threads;  // of a block
  double full, alone;
  int64 least_depth;  // of a piece of k: less is all start
};

template <class T>
constexpr KernelSpeed tile_speed(MatmulKernel kernel, double share, double alone) {
  return {kernel, T::BM, T::BN, T::kThreads, T::BM * T::BN / 128.0 / share, alone, 64};
}

constexpr KernelSpeed kTileSpeeds[] = {
    tile_speed<Tile128x128>(MatmulKernel::k128x128, 0.90, 160.0),
    tile_speed<Tile64x64>(MatmulKernel::k64x64, 0.80, 60.0),
    tile_speed<Tile32x32>(MatmulKernel::k32x32, 0.60, 28.0),
    tile_speed<Tile128x16>(MatmulKernel::k128x16, 0.55, 34.0),
    tile_speed<Tile16x128>(MatmulKernel::k16x128, 0.55, 34.0),
};

// Its reads of shared memory bound it: a quad for four multiply-adds, a wavefront for each of 8 lanes' own
// quads or two for one that all lanes share. `alone`: a load's 600 clocks and two barriers for kDepth steps.
template <bool along_depth>
constexpr KernelSpeed thin_speed(MatmulKernel kernel, bool thin_b) {
  using S = ThinShape<along_depth>;
  return {kernel,      thin_b ? S::kRows : kThin, thin_b ? kThin : S::kRows,
          S::kThreads, along_depth ? 4.5 : 8.0,   along_depth ? 6.0 : 9.0,
          kDepth};
}

// Clocks before the first product of a block: its launch, and the first tile's way from memory.
constexpr double kStartClocks = 1500.0;
// Finishing: what goes through shared memory and out, at 64 bytes a clock.
constexpr double kFloatsPerClock = 16.0;
// Joining pieces: a fence and a counter, then the pieces, some of them at a time: see add_pieces.
constexpr double kJoinClocks = 1200.0, kPieceClocks = 250.0;
constexpr int kMostPieces = 64;
// Tiles to a multiprocessor above which pieces would only even out the last round, at the price of writing
// and reading the product several times over.
constexpr int64 kSplitRounds = 2;

inline double clocks_of(const KernelSpeed& s, const MatmulWay& way, const DeviceTraits& traits) {
  const double rounds = static_cast<double>(ceil_div(way.tiles * way.pieces, traits.multiprocessors));
  const double step = rounds * s.full > s.alone ? rounds * s.full : s.alone;
  const double finish = static_cast<double>(s.rows * s.columns) / kFloatsPerClock;
  const double join =
      way.pieces == 1 ? 0.0 : kJoinClocks + way.pieces * (kPieceClocks + finish) + rounds * finish;
  return kStartClocks + static_cast<double>(way.depth) * step + rounds * finish + join;
}

class WayChoice {
 public:
  WayChoice(const MatmulArgs<float>& args, const DeviceTraits& traits, int64 matrices)
      : a_(args), traits_(traits), matrices_(matrices) {}

  // Takes the kernel if it is faster than those before. more_columns: of B, of ones.
  void consider(const KernelSpeed& s, int64 more_columns = 0) {
    const int64 columns = a_.n + more_columns;
    MatmulWay way{s.kernel,
                  matrices_ * ceil_div(a_.m, s.rows) * ceil_div(columns < 1 ? 1 : columns, s.columns)};
    way.floats_of_piece = s.kernel >= MatmulKernel::kThinA ? 5 * s.threads : s.rows * s.columns + s.threads;
    const int64 most_tiles = kSplitRounds * traits_.multiprocessors < kMostSplitTiles
                                 ? kSplitRounds * traits_.multiprocessors
                                 : kMostSplitTiles;
    for (int wanted = 1; wanted <= kMostPieces; wanted += wanted < 8 ? 1 : wanted / 4) {
      way.depth = ceil_div(ceil_div(a_.k, wanted), 16) * 16;
      if (wanted > 1 && (way.depth < s.least_depth || way.tiles > most_tiles)) return;
      way.pieces = way.depth == 0 ? 1 : static_cast<int>(ceil_div(a_.k, way.depth));
      const double clocks = clocks_of(s, way, traits_);
      if (best_.tiles > 0 && clocks >= least_) continue;
      least_ = clocks;
      best_ = way;
    }
  }

  const MatmulWay& best() const { return best_; }

 private:
  const MatmulArgs<float>& a_;
  const DeviceTraits& traits_;
  int64 matrices_;
  MatmulWay best_;
  double least_ = 0.0;
};

// matrices: of the batch
inline MatmulWay way_of(const MatmulArgs<float>& a, const DeviceTraits& traits, int64 matrices) {
  WayChoice choice(a, traits, matrices);
  for (const KernelSpeed& s : kTileSpeeds) choice.consider(s);
  const int64 beside = a.row_sum == nullptr ? 0 : 1;
  if (a.n + beside <= kThin) {
    constexpr auto kernel = MatmulKernel::kThinB;
    choice.consider(
        view_of_a(a).along_depth ? thin_speed<true>(kernel, true) : thin_speed<false>(kernel, true), beside);
  }
  if (a.m <= kThin) {
    constexpr auto kernel = MatmulKernel::kThinA;
    choice.consider(
        view_of_b(a).along_depth ? thin_speed<true>(kernel, false) : thin_speed<false>(kernel, false),
        beside);
  }
  return choice.best();
}

}  // namespace hotloop::cuda
