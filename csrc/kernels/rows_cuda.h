// SPDX-License-Identifier: Apache-2.0
// What the kernels along rows share. A row belongs to a team of threads: a few lanes of a warp, so that a
// warp takes several short rows; a warp; or a block. Each thread holds its part of the row in registers, so
// that a row is read from memory once however often a kernel goes through it; rows too long for that are
// read anew each time. A kernel is one text for all of them: kWide (the team is a block), kGroups (groups
// of four elements that a thread holds; 0: none).
#pragma once

#include <type_traits>

#include "cuda/reduce.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

constexpr float kInf = __builtin_huge_valf();

// Registers: 255 for teams of a warp or less; 64 for teams of up to 1024 threads, of which 32 hold a row.
constexpr int kWideThreads = 1024;
template <bool kWide>
constexpr int kTeamBlock = kWide ? kWideThreads : kThreads;

// Values that a team reduces at a time.
constexpr int kTeamValues = 4;
template <bool kWide>
constexpr int kTeamScratch = kWide ? 2 * kTeamValues * kWarp : 1;

// The threads that share a row, and what they can do together.
template <bool kWide>
struct Team {
  int64 row;
  bool live;  // else there is no such row: the thread takes part in reductions and writes nothing
  int size, me;
  float* scratch;
  int turn = 0;

  // block: which of those that share the rows. lanes: of a team, unless kWide. rows > 0.
  HL_DEVICE Team(int64 block, int64 rows, int lanes, float* shared) : scratch(shared) {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    size = kWide ? threads : lanes;
    me = thread % size;
    row = kWide ? block : block * (threads / size) + thread / size;
    live = row < rows;
    if (!live) row = rows - 1;
  }
  // A barrier a reduction: the halves of scratch take turns, so that nobody overwrites what others read.
  template <int K, class Op>
  HL_DEVICE void reduce(float (&v)[K], Op op) {
    static_assert(K <= kTeamValues);
    if constexpr (kWide)
      block_reduce(v, op, scratch + (turn++ % 2) * kTeamValues * kWarp);
    else
      warp_reduce(v, op, size);
  }
  template <class Op>
  HL_DEVICE float reduce(float v, Op op) {
    float all[1] = {v};
    reduce(all, op);
    return all[0];
  }
};

// The way of one thread of a team along a row of `cols` elements, in groups of four: neighbours that one
// access of 16 bytes moves if `quads`, else elements of which the team's threads hold neighbours.
template <int kGroups>
struct Span {
  using Index = std::conditional_t<kGroups == 0, int64, int>;
  Index cols;
  int size, me;
  bool quads;

  template <bool kWide>
  HL_DEVICE Span(const Team<kWide>& team, int64 columns, bool by_quads)
      : cols(static_cast<Index>(columns)), size(team.size), me(team.me), quads(by_quads) {}

  HL_DEVICE Index column(Index group, int j) const {
    return quads ? (group * size + me) * 4 + j : (group * 4 + j) * size + me;
  }
  HL_DEVICE bool has(Index group, int j) const { return column(group, j) < cols; }

  // v = elements of p; `other` past the end, and where there is no p
  HL_DEVICE void load(float (&v)[4], const float* p, Index group, float other) const {
    if (p != nullptr && quads && has(group, 0)) {
      const Float4 x = load4(p + column(group, 0));
      v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
      return;
    }
    HL_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = p != nullptr && has(group, j) ? p[column(group, j)] : other;
  }
  HL_DEVICE void store(float* p, Index group, const float (&v)[4]) const {
    if (quads) {
      if (has(group, 0)) store4(p + column(group, 0), Float4{v[0], v[1], v[2], v[3]});
      return;
    }
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (has(group, j)) p[column(group, j)] = v[j];
    }
  }
  // body(group) for each that has elements
  template <class Body>
  HL_DEVICE void each(Body body) const {
    if constexpr (kGroups > 0) {
      HL_UNROLL
      for (int group = 0; group < kGroups; ++group) {
        if (has(group, 0)) body(group);
      }
    } else {
      for (Index group = 0; has(group, 0); ++group) body(group);
    }
  }
};

// A thread's part of a row of p, held; `missing` stands for elements past the end.
template <int kGroups>
struct Row {
  float held[kGroups][4];

  HL_DEVICE Row(const Span<kGroups>& span, const float* p, float missing) {
    HL_UNROLL
    for (int group = 0; group < kGroups; ++group) span.load(held[group], p, group, missing);
  }
  HL_DEVICE void get(const Span<kGroups>&, int group, float (&v)[4]) const {
    HL_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = held[group][j];
  }
  HL_DEVICE void keep(int group, const float (&v)[4]) {
    HL_UNROLL
    for (int j = 0; j < 4; ++j) held[group][j] = v[j];
  }
};

// The same, read anew each time.
template <>
struct Row<0> {
  const float* p;
  float missing;

  template <int any>
  HL_DEVICE Row(const Span<any>&, const float* at, float other) : p(at), missing(other) {}
  template <int any>
  HL_DEVICE void get(const Span<any>& span, typename Span<any>::Index group, float (&v)[4]) const {
    span.load(v, p, group, missing);
  }
};

// Groups of a row of parameters to hold from the start: of short rows, whose kernels wait for memory more
// than they move, so that everything is on its way at once.
template <int kGroups>
constexpr int kEarlyGroups = kGroups == 1 ? 1 : 0;

// out = f(group, v) of the row's groups v. A held row gets all results before the first is written: what f
// reads could else not be fetched ahead of a store, for the compiler cannot know that they do not overlap.
template <int kGroups, class F>
HL_DEVICE void write_row(const Span<kGroups>& span, Row<kGroups>& row, float* out, F f) {
  const auto result = [&](auto group, float (&v)[4]) {
    row.get(span, group, v);
    f(group, v);
  };
  if constexpr (kGroups > 0) {
    span.each([&](int group) { result(group, row.held[group]); });
    span.each([&](int group) { span.store(out, group, row.held[group]); });
  } else {
    span.each([&](int64 group) {
      float v[4];
      result(group, v);
      span.store(out, group, v);
    });
  }
}

// How a launch shares out its rows.
struct RowGrid {
  unsigned blocks;
  int threads, lanes;
};

inline int power_of_two_from(int64 n) {  // the least that is not below n
  int p = 1;
  while (p < n) p *= 2;
  return p;
}

// As many rows a block as leave a block for every multiprocessor.
inline RowGrid narrow_grid(int64 rows, int lanes, const Launch& l) {
  int threads = kThreads;
  while (threads > kWarp && ceil_div(rows * lanes, threads) < l.traits->multiprocessors) threads /= 2;
  return {static_cast<unsigned>(ceil_div(rows * lanes, threads)), threads, lanes};
}

// go.operator()<kWide, kGroups>(grid) for rows > 0 rows. most: groups that threads of the widest team have
// the registers to hold, 4 or 8. Four elements a thread first, so that short rows fill lanes; a warp a row up
// to 1024 columns, without barriers; then blocks, whose threads hold 16 elements while there are threads.
template <int most, class Go>
void for_row_shape(int64 rows, int64 cols, const Launch& l, Go&& go) {
  constexpr int64 kPerGroup = 4, kWarpGroup = kPerGroup * kWarp;
  if (cols <= kWarpGroup)
    return go.template operator()<false, 1>(
        narrow_grid(rows, power_of_two_from(ceil_div(cols, kPerGroup)), l));
  if (cols <= 4 * kWarpGroup) return go.template operator()<false, 4>(narrow_grid(rows, kWarp, l));
  if (cols <= 8 * kWarpGroup) return go.template operator()<false, 8>(narrow_grid(rows, kWarp, l));
  const auto blocks = static_cast<unsigned>(rows);
  if (cols <= 4 * kPerGroup * kWideThreads) {
    const int threads = power_of_two_from(ceil_div(cols, 4 * kPerGroup));
    return go.template operator()<true, 4>(RowGrid{blocks, threads, 0});
  }
  if constexpr (most == 8) {
    if (cols <= 8 * kPerGroup * kWideThreads)
      return go.template operator()<true, 8>(RowGrid{blocks, kWideThreads, 0});
  }
  go.template operator()<true, 0>(RowGrid{blocks, kWideThreads, 0});
}

// Whether rows of `cols` elements of all p may be moved in accesses of 16 bytes. Null is aligned.
template <class... Pointers>
bool in_quads(int64 cols, const Pointers*... p) {
  return cols % 4 == 0 && ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

}  // namespace hotloop::cuda
