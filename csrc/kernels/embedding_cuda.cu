// SPDX-License-Identifier: Apache-2.0
// Embedding: rows of a table gathered by id, and their gradients added back in the order of n without
// atomics. Ids were checked at the border; one that is out of range all the same reads as NaN and adds
// nothing.
//
// The gradient: a block owns some rows of the table. It clears them, looks at every id (they stay in the L2
// cache), lists its own in order, and its warps add the rows listed, each to rows of the table that no other
// warp has. Where the table is so small that an id comes up often, the ids are cut into segments with a table
// each, which are added up at the end. In a large table the few ids that a sample finds to be frequent
// (padding, articles) are left to further blocks, each with a piece of all ids; what they sum is joined in
// the order of pieces. Floor: 4 dim (n + vocab) bytes.
#include <math.h>

#include "cuda/flat.h"
#include "kernels/embedding_rows_cuda.h"

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

// Occurrences of an id in a segment, on average: below this another table costs more than it saves.
constexpr int64 kOccurrences = 32;
constexpr int64 kMaxSegments = 256;
constexpr int kBlocksPerProcessor = 2;  // of the gradient: more would look at the ids more often
// Ids above which the frequent ones are looked for: a row takes one warp some 75 clocks, so that 8192 rows of
// one id are 0.4 ms; the sample is 5 us, and the other launch 2.
constexpr int64 kLeastForSample = 8192;

// How the gradient is cut.
struct Gradient {
  int64 n, vocab, dim;
  int64 segments, ids;  // and ids of each
  int64 owners, rows;   // blocks of a segment, and rows of the table of each
  int slices;           // warps side by side along a row
  // Frequent ids, of which there may be some if pieces > 0: blocks that take a piece of the ids and a slab of
  // the columns, slices warps wide. The other warps share the piece.
  int64 pieces, piece_ids, slabs;

  HOTLOOP_HD int groups() const { return kWarps / slices; }
  HOTLOOP_HD int64 parts() const { return pieces * groups(); }
  HOTLOOP_HD int64 part_floats() const { return kMostFrequent * dim; }
};

Gradient cut_gradient(const EmbeddingBwdArgs<float>& a, const DeviceTraits& traits) {
  Gradient g{a.n, a.vocab, a.dim, 1, a.n, 1, a.vocab, 1, 0, 0, 1};
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
  if (g.segments == 1 && a.n >= kLeastForSample) {
    g.slabs = ceil_div(a.dim, int64{g.slices} * kWarp);
    g.piece_ids = ceil_div(ceil_div(a.n, ceil_div(traits.multiprocessors, g.slabs)), kGlance) * kGlance;
    g.pieces = ceil_div(a.n, g.piece_ids);
  }
  return g;
}

// What frequent ids leave: parts (pieces, groups, kMostFrequent, dim), and which ids they are.
struct FrequentSums {
  float* parts;
  int* ids;  // (1 + kMostFrequent): how many, then the ids

  HOTLOOP_HD FrequentSums(void* workspace, const Gradient& g)
      : parts(reinterpret_cast<float*>(static_cast<unsigned char*>(workspace) + kWorkspaceCounters)),
        ids(reinterpret_cast<int*>(parts + g.parts() * g.part_floats())) {}
};

// A block of the frequent ids: a piece of all ids, and a slab of the columns.
HL_DEVICE void add_frequent(const FrequentSums& to, const float* dy, const index* ids, const Gradient& g,
                            int64 block, const Frequent& frequent, const ScanScratch& scratch) {
  const int64 piece = block / g.slabs, first = piece * g.piece_ids;
  const int group = warp_id() / g.slices;
  const int64 strip = block % g.slabs * g.slices + warp_id() % g.slices, column = strip * kWarp + lane_id();
  float* const sums = to.parts + (piece * g.groups() + group) * g.part_floats();
  if (block == 0 && static_cast<int>(threadIdx.x) <= frequent.n)
    to.ids[threadIdx.x] = threadIdx.x == 0 ? frequent.n : frequent.id[threadIdx.x - 1];
  for (int i = 0; i < frequent.n && column < g.dim; ++i) sums[i * g.dim + column] = 0.0f;
  if (frequent.n == 0) return;
  const int64 count = first + g.piece_ids < g.n ? g.piece_ids : g.n - first;
  scan_ids(
      ids + first, count, scratch, [&](index id) { return frequent.find(id); },
      [&](const Listed* list, int listed) {
        add_column(sums, dy + first * g.dim, list, listed, g.dim, column,
                   [&](int base, index) { return base / kWarp % g.groups() == group; });
      });
}

// tables (segments, vocab, dim): the rows of those ids that are not frequent
HL_KERNEL HL_BOUNDS(kThreads, 2)
    add_rows(float* tables, const float* dy, const index* ids, Gradient g, void* workspace) {
  HL_SHARED(Listed, list, [kListed]);
  HL_SHARED(int, found, [kWarps]);
  HL_SHARED(int, frequent_ids, [kMostFrequent]);
  const ScanScratch scratch{&list[0], &found[0]};
  Frequent frequent{&frequent_ids[0], 0};
  if (g.pieces > 0)  // the sample lies where the list will
    frequent = find_frequent(ids, g.n, g.vocab, reinterpret_cast<int*>(&list[0]), &frequent_ids[0]);
  const int64 block = int64{blockIdx.x} - g.segments * g.owners;
  if (block >= 0) return add_frequent(FrequentSums(workspace, g), dy, ids, g, block, frequent, scratch);
  const int64 segment = blockIdx.x / g.owners, begin = blockIdx.x % g.owners * g.rows;
  const auto rows = static_cast<unsigned>(begin + g.rows < g.vocab ? g.rows : g.vocab - begin);
  float* table = tables + (segment * g.vocab + begin) * g.dim;
  const int64 first = segment * g.ids, end = first + g.ids < g.n ? first + g.ids : g.n;
  for (int64 i = threadIdx.x; i < rows * g.dim; i += kThreads) table[i] = 0.0f;
  // Warps share the columns, and what is left of them the ids: all rows of one id are one warp's.
  const int owners = g.groups(), owner = warp_id() / g.slices;
  scan_ids(
      ids + first, end - first, scratch,
      [&](index id) {
        const unsigned row = static_cast<unsigned>(id) - static_cast<unsigned>(begin);
        return row < rows && frequent.find(id) == ~0u ? row : ~0u;
      },
      [&](const Listed* of_ours, int listed) {
        for (int64 strip = warp_id() % g.slices; strip * kWarp < g.dim; strip += g.slices)
          add_column(table, dy + first * g.dim, of_ours, listed, g.dim, strip * kWarp + lane_id(),
                     [&](int, index id) { return id % owners == owner; });
      });
}

// dweight[frequent id] = sum over parts, whose lanes add every eighth: a block each 32 columns of an id
HL_KERNEL HL_BOUNDS(kThreads, 4) join_frequent(float* dweight, Gradient g, void* workspace) {
  HL_SHARED(float, sums, [kWarps][kWarp]);
  const FrequentSums from(workspace, g);
  const auto which = static_cast<int>(blockIdx.y);
  if (which >= from.ids[0]) return;
  const int64 column = int64{blockIdx.x} * kWarp + lane_id();
  float sum = 0.0f;
  for (int64 part = warp_id(); part < g.parts() && column < g.dim; part += kWarps)
    sum += from.parts[part * g.part_floats() + which * g.dim + column];
  sums[warp_id()][lane_id()] = sum;
  sync();
  if (warp_id() != 0 || column >= g.dim) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][lane_id()];
  dweight[from.ids[1 + which] * g.dim + column] = sum;
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
  const int64 tables = g.segments == 1 ? 0 : g.segments * a.vocab * a.dim;
  const int64 frequent = g.pieces == 0 ? 0 : g.parts() * g.part_floats() + 1 + kMostFrequent;
  return static_cast<std::size_t>(tables + frequent) * sizeof(float);
}

void embedding_bwd_launch(const EmbeddingBwdArgs<float>& a, const Launch& l) {
  if (a.vocab * a.dim == 0) return;
  const Gradient g = cut_gradient(a, *l.traits);
  float* parts = reinterpret_cast<float*>(static_cast<unsigned char*>(l.workspace) + kWorkspaceCounters);
  float* tables = g.segments == 1 ? a.dweight : parts;
  launch(stream_of(l), add_rows, static_cast<unsigned>(g.segments * g.owners + g.pieces * g.slabs), kThreads,
         0, tables, a.dy, a.ids, g, l.workspace);
  if (g.segments > 1) add_tables(a.dweight, parts, g.segments, a.vocab * a.dim, l);
  if (g.pieces > 0)
    launch(stream_of(l), join_frequent, Dim3(static_cast<unsigned>(ceil_div(a.dim, kWarp)), kMostFrequent),
           kThreads, 0, a.dweight, g, l.workspace);
}

}  // namespace hotloop::cuda
