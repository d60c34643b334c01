// SPDX-License-Identifier: Apache-2.0
// Which products go to the matrix units, by which tile and in how many pieces of k: by the count of clocks of
// matmul_choice_cuda.h, with what bounds a tile there (see matmul_mma_tile_cuda.h).
#pragma once

#include "kernels/matmul_choice_cuda.h"
#include "kernels/matmul_mma_cuda.h"
#include "kernels/matmul_mma_tile_cuda.h"

namespace hotloop::cuda {

// Threads, registers a thread at most; shared memory. 128 x 256 has 64 x 64 outputs a warp: 128 registers of
// sums; float32 needs those for its second words. 96 KB and less fit the 99 KB of chips for graphics too.
using Mma128x256 = MmaShape<64, 64, 2, 4, 3, 1>;  // 256, 255; 144 KB
using Mma128x128 = MmaShape<64, 32, 2, 4, 3, 1>;  // 256, 255; 96 KB
using Mma64x64 = MmaShape<32, 32, 2, 2, 3, 2>;    // 128, 255; 48 KB

enum class MmaKernel { k128x256, k128x128, k64x64, kCopies };

struct MmaWay {
  bool takes = false;
  MmaKernel kernel = MmaKernel::k64x64;
  MatmulWay way{};         // its tiles and pieces
  std::size_t copies = 0;  // bytes of workspace
};

// Multiply-adds a clock of a multiprocessor, and bytes a clock of L2 for each, when all work.
constexpr double mma_rate(Precision precision) {
  return precision == Precision::kBf16 ? 1024.0 : precision == Precision::kTf32 ? 512.0 : 512.0 / 3.0;
}
constexpr double kL2BytesPerClock = 25.0;
// Clocks of a tile's 32 steps that one block alone spends at the barrier and on its first fragments' way.
constexpr double kMmaWait = 160.0;
constexpr int64 kLeastMmaDepth = 64;  // of a piece of k: two tiles
// Products for float32 that are below: some two microseconds on the multiply-add units whatever is done.
constexpr double kLeastFloat32Work = 16777216.0;
constexpr int64 kMostMmaSize = int64{1} << 30;  // of m, n, k: places in lines are int

template <class S>
KernelSpeed mma_speed(Precision precision) {
  constexpr double kSums = S::BM * S::BN, kWarps = S::kThreads / kWarp;
  const double unit = kSums / mma_rate(precision);
  const double shared = (kWarps * (S::kWarpM + S::kWarpN) + S::BM + S::BN) * 4.0 / 128.0;
  const double l2 = (S::BM + S::BN) * 4.0 / kL2BytesPerClock, here = unit > shared ? unit : shared;
  return {MatmulKernel{},
          S::BM,
          S::BN,
          S::kThreads,
          here > l2 ? here : l2,
          here + kMmaWait / kMmaDepth,
          S::kSplits ? kLeastMmaDepth : kMostMmaSize};
}

// The better of `best`, which takes `least` clocks, and one tile.
template <class S>
void consider_mma(MmaKernel kernel, const MatmulArgs<float>& a, int64 matrices, const DeviceTraits& traits,
                  Precision precision, MmaWay& best, double& least) {
  if (S::kShared > traits.shared_per_block) return;
  const KernelSpeed speed = mma_speed<S>(precision);
  WayChoice choice(a, traits, matrices);
  choice.consider(speed);
  const double clocks = clocks_of(speed, choice.best(), traits);
  if (clocks >= least) return;
  least = clocks;
  best = {true, kernel, choice.best()};
}

// Bytes a clock of memory for each multiprocessor, when all work; and of them, what the copy of an element
// moves.
constexpr double kMemoryBytesPerClock = 15.0, kCopiedBytes = 6.0;

// Tiles of 128 x 256 from copies in bf16: see matmul_bf16_cuda.h.
inline void consider_copies(const MatmulArgs<float>& a, const DeviceTraits& traits, MmaWay& best,
                            double& least) {
  using S = Mma128x256;
  if (S::kShared > traits.shared_per_block) return;
  const double unit = S::BM * S::BN / mma_rate(Precision::kBf16);
  const double l2 = (S::BM + S::BN) * 2.0 / kL2BytesPerClock;
  const KernelSpeed speed{MatmulKernel{},         S::BM,       S::BN, S::kThreads, unit > l2 ? unit : l2,
                          unit + kMmaWait / 64.0, kMostMmaSize};
  WayChoice choice(a, traits, 1);
  choice.consider(speed);
  const double elements = static_cast<double>(a.m + a.n) * static_cast<double>(a.k);
  const double copy =
      2 * kStartClocks + elements * kCopiedBytes / (kMemoryBytesPerClock * traits.multiprocessors);
  const double clocks = copy + clocks_of(speed, choice.best(), traits);
  if (clocks >= least) return;
  least = clocks;
  best = {true, MmaKernel::kCopies, choice.best(), matmul_bf16_workspace(a)};
}

// Clocks of the multiply-add units; 0 where an operand is too thin for any tile of the matrix units.
inline double plain_clocks(const MatmulArgs<float>& a, int64 matrices, const DeviceTraits& traits) {
  const MatmulWay way = way_of(a, traits, matrices);
  for (const KernelSpeed& s : kTileSpeeds)
    if (s.kernel == way.kernel) return clocks_of(s, way, traits);
  return 0.0;
}

inline bool mma_can_read(const MatrixView& view) {
  return view.panel == 0 && (view.along_depth ? view.stride_p : view.stride_r) == 1;
}

inline MmaWay mma_way_of(const MatmulArgs<float>& a, int64 matrices, const DeviceTraits& traits,
                         Precision precision) {
  const auto out_of_range = [](int64 size) { return size <= 0 || size > kMostMmaSize; };
  if (!traits.has_mma || out_of_range(a.m) || out_of_range(a.n) || out_of_range(a.k)) return {};
  if (!mma_can_read(view_of_a(a)) || !mma_can_read(view_of_b(a))) return {};
  MmaWay best;
  double least = plain_clocks(a, matrices, traits);
  if (precision == Precision::kFloat32) {
    // Chips for graphics (sm_86, 89, 120) multiply in tf32 no faster than in float32.
    const double work =
        static_cast<double>(a.m * matrices) * static_cast<double>(a.n) * static_cast<double>(a.k);
    if (traits.arch % 10 != 0 || work < kLeastFloat32Work) return {};
  } else {
    consider_mma<Mma128x256>(MmaKernel::k128x256, a, matrices, traits, precision, best, least);
  }
  consider_mma<Mma128x128>(MmaKernel::k128x128, a, matrices, traits, precision, best, least);
  consider_mma<Mma64x64>(MmaKernel::k64x64, a, matrices, traits, precision, best, least);
  if (precision == Precision::kBf16 && matrices == 1 && best.takes) consider_copies(a, traits, best, least);
  return best;
}

}  // namespace hotloop::cuda
