// SPDX-License-Identifier: Apache-2.0
// Sums down the columns of a matrix. A block has a tile of columns, up to 32 so that a warp reads 128 bytes
// side by side, and a run of rows, which its threads share by turns. Where there are several runs their sums
// go to the workspace, and the last block to arrive at a tile adds them up in the order of the runs: which
// block that is cannot be seen in the result.
//
// Accesses are of 4 bytes, a warp's side by side. The loops take 5 to 8 instructions for each load, 11 where
// they store as well, and 13 for moments (machine code of sm_90): at 4 instructions a clock that is 40 to 100
// bytes a clock, where memory gives an H100's multiprocessor 15 and L2 some 25. Four columns a thread would
// take fewer instructions, which bound nothing, for four times the registers.
#pragma once

#include "cuda/reduce.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

constexpr int kTileColumns = kWarp;
constexpr int kMaxColumnWarps = 32;
// Floats of shared memory to add up K values a column.
template <int K>
constexpr int kColumnScratch = K * kMaxColumnWarps * kTileColumns;

// This thread's place in its block's tile.
struct ColumnTile {
  int width;        // columns of the tile, a power of two
  int slots, slot;  // rows that the block reads at a time, and which of them is this thread's
  int64 column;
  bool live;  // else the column is past the end: nothing may be read or written there

  HL_DEVICE ColumnTile(int64 tile, int columns, int64 cols) : width(columns) {
    const int thread = static_cast<int>(threadIdx.x);
    slots = static_cast<int>(blockDim.x) / width;
    slot = thread / width;
    column = tile * width + thread % width;
    live = column < cols;
  }
  HL_DEVICE bool first() const { return live && slot == 0; }
};

// Adds what the slots of a column hold, in the order of lanes and warps; every slot gets the result.
template <class T, int K, class Join>
HL_DEVICE void join_slots(const ColumnTile& tile, T (&v)[K], T* scratch, Join join) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int step = tile.width; step < kWarp; step *= 2) join(v, [&](int k) { return shfl_xor(v[k], step); });
  sync();  // nobody reads what scratch held
  if (lane_id() < tile.width) {
    HL_UNROLL
    for (int k = 0; k < K; ++k) scratch[(k * kMaxColumnWarps + warp_id()) * kTileColumns + lane_id()] = v[k];
  }
  sync();
  const int at = lane_id() % tile.width;
  HL_UNROLL
  for (int k = 0; k < K; ++k) v[k] = scratch[k * kMaxColumnWarps * kTileColumns + at];
  for (int w = 1; w < warps; ++w)
    join(v, [&](int k) { return scratch[(k * kMaxColumnWarps + w) * kTileColumns + at]; });
}

struct AddColumns {
  template <int K, class Other>
  HL_DEVICE void operator()(float (&v)[K], Other other) const {
    float o[K];
    HL_UNROLL
    for (int k = 0; k < K; ++k) o[k] = other(k);
    HL_UNROLL
    for (int k = 0; k < K; ++k) v[k] += o[k];
  }
};

// Rows whose loads are on their way together: 2048 threads with 4 have 32 KB.
constexpr int kRowsAhead = 4;

// sums[K] of a column = sum over the rows [begin, end) of body(row, terms[K]), for all threads of the column.
template <int K, class Body>
HL_DEVICE void sum_down(const ColumnTile& tile, int64 begin, int64 end, float (&sums)[K], float* scratch,
                        Body body) {
  HL_UNROLL
  for (int k = 0; k < K; ++k) sums[k] = 0.0f;
  int64 row = begin + tile.slot;
  for (; tile.live && row + int64{kRowsAhead - 1} * tile.slots < end; row += int64{kRowsAhead} * tile.slots) {
    float terms[kRowsAhead][K];
    HL_UNROLL
    for (int u = 0; u < kRowsAhead; ++u) body(row + int64{u} * tile.slots, terms[u]);
    HL_UNROLL
    for (int k = 0; k < K; ++k) sums[k] += (terms[0][k] + terms[1][k]) + (terms[2][k] + terms[3][k]);
  }
  for (; tile.live && row < end; row += tile.slots) {
    float terms[K];
    body(row, terms);
    HL_UNROLL
    for (int k = 0; k < K; ++k) sums[k] += terms[k];
  }
  join_slots(tile, sums, scratch, AddColumns{});
}

// How a launch shares out a matrix: grid (tiles, runs).
struct ColumnPlan {
  int width;
  unsigned tiles, runs;
  int64 run_rows;

  Dim3 grid() const { return Dim3(tiles, runs, 1); }
  // Of the partial sums and their counters; see finish_runs.
  std::size_t bytes(int values) const {
    return runs == 1 ? 0
                     : kWorkspaceCounters + std::size_t{tiles} * runs * static_cast<std::size_t>(values) *
                                                static_cast<std::size_t>(width) * sizeof(float);
  }
};

// At least 8 rows a thread, for a partial sum costs more than a row; and 4 blocks of 256 threads for each
// multiprocessor, half of what it holds, since more runs are more partial sums.
inline ColumnPlan plan_columns(int64 rows, int64 cols, const DeviceTraits& traits) {
  constexpr int64 kLeastRows = 8, kBlocksWanted = 4;
  constexpr int64 kMaxTiles = kWorkspaceCounters / sizeof(int);  // with a counter each
  int width = 1;
  while (width < cols && width < kTileColumns) width *= 2;
  const int64 tiles = ceil_div(cols, width), slots = kThreads / width;
  int64 runs = ceil_div(traits.multiprocessors * kBlocksWanted, tiles);
  const int64 most = rows / (slots * kLeastRows);
  if (runs > most) runs = most;
  if (runs < 1 || tiles > kMaxTiles) runs = 1;
  const int64 run_rows = ceil_div(ceil_div(rows, runs), slots) * slots;
  runs = run_rows > 0 ? ceil_div(rows, run_rows) : 1;
  return {width, static_cast<unsigned>(tiles), static_cast<unsigned>(runs), run_rows};
}

// A block's values v[K] of its columns go to the workspace; true for the block that comes last at its tile,
// which then reads what all runs left by partial_at(). Of all threads; tile = blockIdx.x, run = blockIdx.y.
template <int K>
struct RunPartials {
  int* counters;
  float* partials;  // (tiles, runs, K, width)
  int width;

  HL_DEVICE RunPartials(void* workspace, int columns)
      : counters(static_cast<int*>(workspace)),
        partials(reinterpret_cast<float*>(static_cast<char*>(workspace) + kWorkspaceCounters)),
        width(columns) {}

  HL_DEVICE float& at(int64 run, int k) const {
    const int64 tile = blockIdx.x, lane = static_cast<int>(threadIdx.x) % width;
    return partials[((tile * gridDim.y + run) * K + k) * width + lane];
  }
  HL_DEVICE bool last(const float (&v)[K]) const {
    if (static_cast<int>(threadIdx.x) < width) {
      HL_UNROLL
      for (int k = 0; k < K; ++k) at(blockIdx.y, k) = v[k];
    }
    fence();
    sync();
    bool mine = false;
    if (threadIdx.x == 0) {
      const int runs = static_cast<int>(gridDim.y);
      mine = atomic_add(counters + blockIdx.x, 1) == runs - 1;
      if (mine) counters[blockIdx.x] = 0;
    }
    const bool is_last = sync_or(mine);
    fence();
    return is_last;
  }
};

// The sums of a tile over all rows: true in the one block that has them.
template <int K, class Body>
HL_DEVICE bool sum_columns(const ColumnTile& tile, int64 rows, int64 run_rows, float (&sums)[K],
                           float* scratch, void* workspace, Body body) {
  const int64 begin = blockIdx.y * run_rows, end = begin + run_rows < rows ? begin + run_rows : rows;
  sum_down(tile, begin, end, sums, scratch, body);
  if (gridDim.y == 1) return true;
  const RunPartials<K> partials(workspace, tile.width);
  if (!partials.last(sums)) return false;
  sum_down(tile, 0, gridDim.y, sums, scratch, [&](int64 run, float (&terms)[K]) {
    HL_UNROLL
    for (int k = 0; k < K; ++k) terms[k] = partials.at(run, k);
  });
  return true;
}

}  // namespace hotloop::cuda
