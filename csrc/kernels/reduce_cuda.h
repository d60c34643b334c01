// SPDX-License-Identifier: Apache-2.0
// Reductions of (outer, reduce, inner) over the middle, of whatever kind. A block covers some columns of some
// matrices, with as many lanes down the rows of each as its threads allow; neighbouring threads read
// neighbouring elements whether inner is 1 or not. Where that makes too few blocks, the rows are cut into
// runs: each block leaves its part in the workspace, and the last to finish joins them. The order of the sums
// follows from the shape and the device alone.
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

struct Cut {
  int64 outer, reduce, inner;
  int columns, lanes, matrices;  // of a block: powers of two, their product is kThreads
  int64 tiles;                   // of columns
  int64 runs, rows;              // of the reduced dimension: pieces, and rows of each
  unsigned blocks() const { return static_cast<unsigned>(groups() * tiles * runs); }
  int64 groups() const { return ceil_div(outer, matrices); }
};

// Rows that a lane adds before it is worth more lanes, and runs: a few loads on their way at once.
constexpr int64 kRowsPerLane = 4;
// Runs are cut until there are so many blocks for each multiprocessor.
constexpr int64 kBlocksPerProcessor = 4;
// Runs of one output: the last block reads as many parts.
constexpr int64 kMaxRuns = 1024;

inline int power_of_two(int64 wanted, int most) {
  int n = 1;
  while (n < wanted && n < most) n *= 2;
  return n;
}

inline Cut cut_reduction(int64 outer, int64 reduce, int64 inner, const DeviceTraits& traits,
                         bool may_split = true) {
  Cut cut{outer, reduce, inner, 1, 1, 1, 1, 1, reduce};
  cut.columns = power_of_two(inner, kWarp);
  cut.lanes = power_of_two(ceil_div(reduce, kRowsPerLane), kThreads / cut.columns);
  cut.matrices = power_of_two(outer, kThreads / (cut.columns * cut.lanes));
  cut.lanes = kThreads / (cut.columns * cut.matrices);  // what few matrices leave over
  cut.tiles = ceil_div(inner, cut.columns);
  const int64 blocks = cut.groups() * cut.tiles, wanted = traits.multiprocessors * kBlocksPerProcessor;
  if (!may_split || blocks == 0 || blocks >= wanted ||
      blocks > static_cast<int64>(kWorkspaceCounters / sizeof(int)))
    return cut;
  const int64 worth = ceil_div(reduce, cut.lanes * kRowsPerLane * 4);
  int64 runs = ceil_div(wanted, blocks);
  if (runs > worth) runs = worth;
  if (runs > kMaxRuns) runs = kMaxRuns;
  if (runs < 2) return cut;
  cut.rows = ceil_div(reduce, runs);
  cut.runs = ceil_div(reduce, cut.rows);
  return cut;
}

// Bytes of the parts, behind the counters.
inline std::size_t parts_bytes(const Cut& cut, std::size_t part) {
  return cut.runs == 1 ? 0 : cut.blocks() * static_cast<std::size_t>(cut.columns * cut.matrices) * part;
}

// What a thread of the block has to do with.
struct Place {
  int lane;          // of those that share an output
  int slot;          // the output's number in the block
  int64 o, column;   // the output
  bool exists;       // it does
  int64 begin, end;  // rows of this block's run

  HL_DEVICE explicit Place(const Cut& cut) {
    const int t = static_cast<int>(threadIdx.x);
    const int64 run = blockIdx.x % cut.runs, tile = blockIdx.x / cut.runs;
    const int matrix = t / (cut.columns * cut.lanes);
    lane = t / cut.columns % cut.lanes;
    slot = matrix * cut.columns + t % cut.columns;
    o = tile / cut.tiles * cut.matrices + matrix;
    column = tile % cut.tiles * cut.columns + t % cut.columns;
    exists = o < cut.outer && column < cut.inner;
    begin = run * cut.rows;
    end = begin + cut.rows < cut.reduce ? begin + cut.rows : cut.reduce;
    if (!exists) end = begin;
  }
};

// Joins what the lanes of each output have; the first lane gets all of it, in the order of a tree.
template <class Part, class Join>
HL_DEVICE void join_lanes(Part& part, const Cut& cut, int lane, Join join) {
  HL_SHARED(Part, parts, [kThreads]);
  const int t = static_cast<int>(threadIdx.x);
  parts[t] = part;
  for (int half = cut.lanes / 2; half > 0; half /= 2) {
    sync();
    if (lane < half) parts[t] = join(parts[t], parts[t + half * cut.columns]);
  }
  sync();
  part = parts[t];
}

// The same for the whole grid: true in the one thread that has all parts of its output. `none`: the neutral
// part. Every thread of every block has to come here.
template <class Part, class Join>
HL_DEVICE bool join_all(Part& part, const Part& none, const Cut& cut, const Place& at, void* workspace,
                        Join join) {
  join_lanes(part, cut, at.lane, join);
  if (cut.runs == 1) return at.lane == 0 && at.exists;
  const int outputs = cut.columns * cut.matrices;
  Part* parts = reinterpret_cast<Part*>(static_cast<unsigned char*>(workspace) + kWorkspaceCounters);
  int* arrived = static_cast<int*>(workspace) + blockIdx.x / cut.runs;
  if (at.lane == 0) parts[int64{blockIdx.x} * outputs + at.slot] = part;
  fence();
  sync();
  const bool last = sync_or(threadIdx.x == 0 && atomic_add(arrived, 1) == cut.runs - 1);
  if (!last) return false;
  fence();
  if (threadIdx.x == 0) *arrived = 0;
  const int64 first = blockIdx.x / cut.runs * cut.runs;
  part = none;
  for (int64 run = at.lane; run < cut.runs; run += cut.lanes)
    part = join(part, parts[(first + run) * outputs + at.slot]);
  join_lanes(part, cut, at.lane, join);
  return at.lane == 0 && at.exists;
}

}  // namespace hotloop::cuda
