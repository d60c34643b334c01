// SPDX-License-Identifier: Apache-2.0
// What blocks of an embedding's gradient do with ids: look at many at once, list in order those they are
// after, and add the rows of dy that are listed. And which ids are so frequent that one block must not have
// them: a sample of the ids says so. It decides who adds what, never what is added: an id that it misses
// costs time.
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

constexpr int kWarps = kThreads / kWarp;
// Ids that a thread looks at in one go: as many loads on their way.
constexpr int kLooks = 8;
constexpr int kGlance = kThreads * kLooks;  // of the block
constexpr int kListed = 2 * kGlance;        // 32 KB

struct Listed {
  index id;         // row of the table
  std::int32_t at;  // row of dy, from the first id looked at on
};

struct ScanScratch {
  Listed* list;  // (kListed)
  int* found;    // (kWarps)
};

// Looks at the ids of a run. row_of(id): the row of the table that it adds to, ~0u if it is not ours.
// add(list, count): those listed, in their order; called when the list is nearly full and at the end.
template <class RowOf, class Add>
HL_DEVICE void scan_ids(const index* ids, int64 count, const ScanScratch& s, RowOf row_of, Add add) {
  int listed = 0;
  for (int64 glance = 0; glance < count; glance += kGlance) {
    // a warp looks at neighbouring ids, kLooks times 32
    const int64 from = glance + int64{warp_id()} * kLooks * kWarp + lane_id();
    index id[kLooks];
    unsigned row[kLooks];
    int mine = 0;
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) id[u] = from + u * kWarp < count ? ids[from + u * kWarp] : -1;
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) row[u] = from + u * kWarp < count ? row_of(id[u]) : ~0u;
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) mine += count_bits(ballot(row[u] != ~0u));
    if (lane_id() == 0) s.found[warp_id()] = mine;
    sync();
    int to = listed;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp_id()) to += s.found[w];
      listed += s.found[w];
    }
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) {
      const bool own = row[u] != ~0u;
      const unsigned all = ballot(own);
      const int place = to + count_bits(all & ((1u << lane_id()) - 1));
      if (own) s.list[place] = {static_cast<index>(row[u]), static_cast<std::int32_t>(from + u * kWarp)};
      to += count_bits(all);
    }
    sync();
    if (listed <= kListed - kGlance && glance + kGlance < count) continue;
    add(s.list, listed);
    listed = 0;
    sync();
  }
}

// Rows of dy on their way at a time.
constexpr int kRowsAhead = 8;

// table[id, column] += dy[at, column] of those listed that takes(place in the list, id) says, in their order;
// by a warp of neighbouring columns.
template <class Takes>
HL_DEVICE void add_column(float* table, const float* dy, const Listed* list, int count, int64 dim,
                          int64 column, Takes takes) {
  const int lane = lane_id();
  const bool exists = column < dim;
  float sum = 0.0f;
  int current = -1;
  for (int base = 0; base < count; base += kWarp) {
    const bool any = base + lane < count;
    const Listed mine = any ? list[base + lane] : Listed{0, 0};
    unsigned left = ballot(any && takes(base, mine.id));
    while (left != 0) {
      int from[kRowsAhead];
      float value[kRowsAhead];
      HL_UNROLL
      for (int u = 0; u < kRowsAhead; ++u) {
        from[u] = left != 0 ? lowest_bit(left) : -1;
        left &= left - 1;  // 0 stays 0
        const std::int32_t at = shfl(mine.at, from[u] & (kWarp - 1));
        value[u] = from[u] >= 0 && exists ? dy[at * dim + column] : 0.0f;
      }
      HL_UNROLL
      for (int u = 0; u < kRowsAhead; ++u) {
        const int id = shfl(mine.id, from[u] & (kWarp - 1));
        if (from[u] < 0) continue;
        if (id != current) {
          if (exists && current >= 0) table[current * dim + column] = sum;
          sum = exists ? table[id * dim + column] : 0.0f;
          current = id;
        }
        sum += value[u];
      }
    }
  }
  if (exists && current >= 0) table[current * dim + column] = sum;
}

// Ids in the sample, how often one must be in it to be frequent, and so how many can be. Of an id with 1/32
// of all ids the sample has 16 on average, and fewer than 8 once in a hundred cases. Counting takes 128 reads
// of shared memory a thread, some 5 us of a multiprocessor with two blocks.
constexpr int kSample = 2 * kThreads, kFrequent = 8, kMostFrequent = kSample / kFrequent;

// The frequent ids in the order of the sample; the same for every block.
struct Frequent {
  int* id;  // (kMostFrequent), shared
  int n;

  HL_DEVICE unsigned find(index wanted) const {
    for (int i = 0; i < n; ++i)
      if (id[i] == wanted) return static_cast<unsigned>(i);
    return ~0u;
  }
};

// Sample number i of n ids lies somewhere in the i-th part of them: at equal steps it would be blind to ids
// that come up at equal steps.
HL_DEVICE int64 sample_place(int i, int64 n) {
  const int64 part = n / kSample;
  const std::uint32_t mixed = static_cast<std::uint32_t>(i) * 2654435761u;
  return i * part + static_cast<int64>((mixed >> 8) % static_cast<std::uint32_t>(part));
}

// sample (kSample), found (kMostFrequent) in shared memory. n is at least kSample.
HL_DEVICE Frequent find_frequent(const index* ids, int64 n, int64 vocab, int* sample, int* found) {
  HL_SHARED(int, marks, [kSample / kWarp]);
  const auto t = static_cast<int>(threadIdx.x);
  index mine[2];
  HL_UNROLL
  for (int u = 0; u < 2; ++u) {
    const index id = ids[sample_place(t + u * kThreads, n)];
    mine[u] = id >= 0 && id < vocab ? id : -1;
    sample[t + u * kThreads] = mine[u];
  }
  sync();
  int count[2] = {};
  HL_NO_UNROLL
  for (int i = 0; i < kSample; i += 4) {
    const Float4 v = load4(reinterpret_cast<const float*>(sample) + i);
    const float four[4] = {v.x, v.y, v.z, v.w};
    HL_UNROLL
    for (int e = 0; e < 4; ++e) HL_UNROLL
    for (int u = 0; u < 2; ++u) count[u] += __builtin_bit_cast(int, four[e]) == mine[u] ? 1 : 0;
  }
  bool first[2];  // of those that are equal
  HL_UNROLL
  for (int u = 0; u < 2; ++u) {
    first[u] = mine[u] >= 0 && count[u] >= kFrequent;
    for (int i = 0; first[u] && i < t + u * kThreads; ++i) first[u] = sample[i] != mine[u];
    const unsigned all = ballot(first[u]);
    if (lane_id() == 0) marks[warp_id() + u * kWarps] = static_cast<int>(all);
  }
  sync();
  int n_found = 0;
  for (int w = 0; w < kSample / kWarp; ++w) {
    const auto all = static_cast<unsigned>(marks[w]);
    HL_UNROLL
    for (int u = 0; u < 2; ++u) {
      if (first[u] && w == warp_id() + u * kWarps)
        found[n_found + count_bits(all & ((1u << lane_id()) - 1))] = mine[u];
    }
    n_found += count_bits(all);
  }
  sync();
  return {found, n_found};
}

}  // namespace hotloop::cuda
