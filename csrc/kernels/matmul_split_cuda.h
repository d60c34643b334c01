// SPDX-License-Identifier: Apache-2.0
// Sums over k in pieces, where a product has too few outputs to fill the device. Each block leaves the sums
// of its piece in the workspace and counts itself; the last to come for an output tile adds all pieces up in
// their order, its own among them, so the bits do not depend on who was last. It also sets the counter back
// to zero for the next launch. Nobody waits for anybody.
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

// Tiles of one launch that may be in pieces: a counter each.
constexpr int64 kMostSplitTiles = static_cast<int64>(kWorkspaceCounters / sizeof(int));

struct Split {
  int* counters;   // (tiles)
  float* partial;  // (tiles, pieces, floats of a tile): as the threads hold them, side by side by thread
  int pieces;
  int64 depth;  // steps of k of a piece, a multiple of 16
};
// The block's tile among those of all matrices of a batch.
HL_DEVICE int64 split_tile() { return int64{blockIdx.z} * gridDim.x + blockIdx.x; }

inline Split split_of(void* workspace, int pieces, int64 depth) {
  auto* const counters = static_cast<int*>(workspace);
  return {counters, reinterpret_cast<float*>(static_cast<char*>(workspace) + kWorkspaceCounters), pieces,
          depth};
}

// Called by a whole block with its sums of piece number `piece`. True for the one block of the tile that is
// to finish it: there `sums` and `extra` are now those of all pieces.
template <int kThreads, int n>
HL_DEVICE bool add_pieces(const Split& split, int64 tile, int piece, float (&sums)[n], float& extra) {
  static_assert(n % 4 == 0);
  constexpr int kFloats = kThreads * (n + 1);
  const int me = static_cast<int>(threadIdx.x);
  float* const all = split.partial + tile * split.pieces * kFloats;
  float* const mine = all + piece * kFloats;
  HL_UNROLL
  for (int i = 0; i < n; i += 4)
    store4(mine + i * kThreads + me * 4, Float4{sums[i], sums[i + 1], sums[i + 2], sums[i + 3]});
  mine[n * kThreads + me] = extra;
  fence();
  sync();
  bool last = false;
  if (me == 0) last = atomic_add(split.counters + tile, 1) == split.pieces - 1;
  if (!sync_or(last)) return false;
  fence();
  if (me == 0) split.counters[tile] = 0;
  HL_UNROLL
  for (int i = 0; i < n; ++i) sums[i] = 0.0f;
  extra = 0.0f;
  // Several pieces are under way at once, as far as registers go: a load takes some 600 clocks.
  constexpr int kAhead = n <= 16 ? 4 : 1;
  HL_NO_UNROLL
  for (int first = 0; first < split.pieces; first += kAhead) {
    Float4 v[kAhead][n / 4];
    float more[kAhead];
    HL_UNROLL
    for (int s = 0; s < kAhead; ++s) {
      const float* const from = all + (first + s) * kFloats;
      const bool there = first + s < split.pieces;
      HL_UNROLL
      for (int i = 0; i < n; i += 4) v[s][i / 4] = there ? load4(from + i * kThreads + me * 4) : Float4{};
      more[s] = there ? from[n * kThreads + me] : 0.0f;
    }
    HL_UNROLL
    for (int s = 0; s < kAhead; ++s) {
      HL_UNROLL
      for (int i = 0; i < n; i += 4) {
        sums[i] += v[s][i / 4].x;
        sums[i + 1] += v[s][i / 4].y;
        sums[i + 2] += v[s][i / 4].z;
        sums[i + 3] += v[s][i / 4].w;
      }
      extra += more[s];
    }
  }
  return true;
}

}  // namespace hotloop::cuda
