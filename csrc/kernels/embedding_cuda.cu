// SPDX-License-Identifier: Apache-2.0
// Embedding: rows of a table gathered by id, and their gradients added back in the order of n without
// atomics. Ids were checked at the border; one that is out of range all the same reads as NaN and adds
// nothing.
//
// The gradient: a block owns some rows of the table. It clears them, looks at every id (they stay in the L2
// cache), lists its own in order, and its warps add the rows listed, each to rows of the table that no other
// warp has. Where the table is so small that an id comes up often, the ids are cut into segments with a table
// each, which are added up at the end. Floor: 4 dim (n + vocab) bytes. An id that comes up often in a large
// table is added by one warp, four rows of dy on their way at a time.
#include <math.h>

#include "cuda/flat.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

// reduce_cuda.cu: out (elements) = sum over tables of parts (tables, elements), in their order
void add_tables(float* out, const float* parts, int64 tables, int64 elements, const Launch& l);

namespace {

// y (n, dim) = weight (vocab, dim)[ids (n)]
HL_KERNEL gather_rows(float* y, const float* weight, const index* ids, int64 elements, int64 vocab, int64 dim,
                      int64 n4) {
  const auto source = [&](int64 i) -> const float* {
    const int64 row = quotient(i, dim), id = ids[row];
    return id >= 0 && id < vocab ? weight + id * dim + (i - row * dim) : nullptr;
  };
  for_quads(
      elements, n4,
      [&](int64 i) {
        const float* p = source(i);
        store4(y + i, p != nullptr ? load4(p) : Float4{NAN, NAN, NAN, NAN});
      },
      [&](int64 i) {
        const float* p = source(i);
        y[i] = p != nullptr ? *p : NAN;
      });
}

constexpr int kWarps = kThreads / kWarp;
// Ids that a thread looks at in one go: as many loads on their way.
constexpr int kLooks = 8;
constexpr int kGlance = kThreads * kLooks;  // of the block
constexpr int kListed = 2 * kGlance;        // 32 KB
// Occurrences of an id in a segment, on average: below this another table costs more than it saves.
constexpr int64 kOccurrences = 32;
constexpr int64 kMaxSegments = 256;
constexpr int kBlocksPerProcessor = 2;  // of the gradient: more would look at the ids more often

// How the gradient is cut.
struct Gradient {
  int64 n, vocab, dim;
  int64 segments, ids;  // and ids of each
  int64 owners, rows;   // blocks of a segment, and rows of the table of each
  int slices;           // warps side by side along a row
};

Gradient cut_gradient(const EmbeddingBwdArgs<float>& a, const DeviceTraits& traits) {
  Gradient g{a.n, a.vocab, a.dim, 1, a.n, 1, a.vocab, 1};
  const int64 blocks = int64{traits.multiprocessors} * kBlocksPerProcessor;
  int64 segments = a.n / (kOccurrences * a.vocab);
  if (segments > kMaxSegments) segments = kMaxSegments;
  if (segments > 1) {
    g.ids = ceil_div(a.n, segments);
    g.segments = ceil_div(a.n, g.ids);
  }
  const int64 owners = ceil_div(blocks, g.segments);
  g.rows = ceil_div(a.vocab, owners < a.vocab ? owners : a.vocab);
  g.owners = ceil_div(a.vocab, g.rows);
  while (g.slices < kWarps && g.slices * kWarp < a.dim) g.slices *= 2;
  return g;
}

struct Listed {
  index id;         // row of the table, from the block's first on
  std::int32_t at;  // row of dy, from the segment's first on
};

// Adds the rows of dy that are listed to the block's rows of the table. Warps share the columns, and what is
// left of them the ids: all rows of one id are added by one warp, in the order of the list.
HL_DEVICE void add_listed(float* table, const float* dy, const Listed* list, int count, const Gradient& g) {
  const int owners = kWarps / g.slices, owner = warp_id() / g.slices, lane = lane_id();
  for (int64 first = int64{warp_id() % g.slices} * kWarp; first < g.dim; first += int64{g.slices} * kWarp) {
    const int64 column = first + lane;
    const bool exists = column < g.dim;
    float sum = 0.0f;
    int current = -1;
    for (int base = 0; base < count; base += kWarp) {
      const bool any = base + lane < count;
      const Listed mine = any ? list[base + lane] : Listed{0, 0};
      unsigned left = ballot(any && mine.id % owners == owner);
      while (left != 0) {
        int from[4];
        float value[4];
        HL_UNROLL
        for (int u = 0; u < 4; ++u) {
          from[u] = left != 0 ? lowest_bit(left) : -1;
          left &= left - 1;  // 0 stays 0
          const std::int32_t at = shfl(mine.at, from[u] & (kWarp - 1));
          value[u] = from[u] >= 0 && exists ? dy[at * g.dim + column] : 0.0f;
        }
        HL_UNROLL
        for (int u = 0; u < 4; ++u) {
          const int id = shfl(mine.id, from[u] & (kWarp - 1));
          if (from[u] < 0) continue;
          if (id != current) {
            if (exists && current >= 0) table[current * g.dim + column] = sum;
            sum = exists ? table[id * g.dim + column] : 0.0f;
            current = id;
          }
          sum += value[u];
        }
      }
    }
    if (exists && current >= 0) table[current * g.dim + column] = sum;
  }
}

// tables (segments, vocab, dim)
HL_KERNEL HL_BOUNDS(kThreads, 2) add_rows(float* tables, const float* dy, const index* ids, Gradient g) {
  HL_SHARED(Listed, list, [kListed]);
  HL_SHARED(int, found, [kWarps]);
  const int64 segment = blockIdx.x / g.owners, begin = blockIdx.x % g.owners * g.rows;
  const auto rows = static_cast<unsigned>(begin + g.rows < g.vocab ? g.rows : g.vocab - begin);
  float* table = tables + (segment * g.vocab + begin) * g.dim;
  const int64 first = segment * g.ids, end = first + g.ids < g.n ? first + g.ids : g.n;
  for (int64 i = threadIdx.x; i < rows * g.dim; i += kThreads) table[i] = 0.0f;
  int listed = 0;
  for (int64 glance = first; glance < end; glance += kGlance) {
    // a warp looks at neighbouring ids, kLooks times 32
    const int64 from = glance + int64{warp_id()} * kLooks * kWarp + lane_id();
    unsigned id[kLooks];  // rows of this block, or larger
    int count = 0;
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) {
      const int64 i = from + u * kWarp;
      id[u] = i < end ? static_cast<unsigned>(ids[i]) - static_cast<unsigned>(begin) : ~0u;
    }
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) count += count_bits(ballot(id[u] < rows));
    if (lane_id() == 0) found[warp_id()] = count;
    sync();
    int to = listed;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp_id()) to += found[w];
      listed += found[w];
    }
    HL_UNROLL
    for (int u = 0; u < kLooks; ++u) {
      const bool own = id[u] < rows;
      const unsigned all = ballot(own);
      const int place = to + count_bits(all & ((1u << lane_id()) - 1));
      if (own) list[place] = {static_cast<index>(id[u]), static_cast<std::int32_t>(from + u * kWarp - first)};
      to += count_bits(all);
    }
    sync();
    if (listed <= kListed - kGlance && glance + kGlance < end) continue;
    add_listed(table, dy + first * g.dim, list, listed, g);
    listed = 0;
    sync();
  }
}

}  // namespace

void embedding_fwd_launch(const EmbeddingFwdArgs<float>& a, const Launch& l) {
  const int64 elements = a.n * a.dim;
  if (elements == 0) return;
  const int64 n4 = a.dim % 4 == 0 ? quads(elements, a.y, a.weight) : 0;
  launch(stream_of(l), gather_rows, grid_for(n4 > 0 ? n4 : elements, l), kThreads, 0, a.y, a.weight, a.ids,
         elements, a.vocab, a.dim, n4);
}

std::size_t workspace_bytes(const EmbeddingBwdArgs<float>& a, const DeviceTraits& traits, Precision) {
  if (a.vocab * a.dim == 0) return 0;
  const Gradient g = cut_gradient(a, traits);
  return g.segments == 1 ? 0 : static_cast<std::size_t>(g.segments * a.vocab * a.dim) * sizeof(float);
}

void embedding_bwd_launch(const EmbeddingBwdArgs<float>& a, const Launch& l) {
  if (a.vocab * a.dim == 0) return;
  const Gradient g = cut_gradient(a, *l.traits);
  float* parts = reinterpret_cast<float*>(static_cast<unsigned char*>(l.workspace) + kWorkspaceCounters);
  float* tables = g.segments == 1 ? a.dweight : parts;
  launch(stream_of(l), add_rows, static_cast<unsigned>(g.segments * g.owners), kThreads, 0, tables, a.dy,
         a.ids, g);
  if (g.segments > 1) add_tables(a.dweight, parts, g.segments, a.vocab * a.dim, l);
}

}  // namespace hotloop::cuda
