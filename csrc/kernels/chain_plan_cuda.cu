// SPDX-License-Identifier: Apache-2.0
// How a chain lies on a multiprocessor: rows of a tile, which values and weights stay in shared memory,
// where.
#include "kernels/chain_plan.h"

#include <algorithm>
#include <vector>

namespace hotloop::cuda {
namespace {

// A tensor that an instruction makes.
struct Value {
  ChainOperand* made;
  int step, columns;
  bool unread;
  int next = -1, last = -1;  // instructions that read it first as their main operand; that read it last
  std::vector<std::pair<int, ChainOperand*>> readers;
};

struct Range {
  const float *begin, *end;
  bool meets(const Range& o) const { return begin < o.end && o.begin < end; }
};

Range range_of(const ChainOperand& o, int columns, int64 rows) {
  return {o.at, o.at == nullptr ? o.at : o.at + (rows - 1) * o.stride + columns};
}

// Who reads what of the chain's own values.
class Links {
 public:
  explicit Links(ChainList& list) : program_(list.program) {
    for (int i = 0; i < program_.n && good_; ++i) {
      ChainInstruction& s = program_.steps[i];
      const int in_columns = s.kind == ChainKind::kProduct ? s.depth : s.columns;
      read(i, s.in, in_columns, true);
      read(i, s.other, s.columns, false);
      read(i, s.residual, s.columns, false);
      aside(s.b.at, range_of_matrix(s.b));
      for (const float* const v : {s.vector, s.shift}) aside(v, {v, v + s.columns});
      for (const float* const v : {s.drow, reinterpret_cast<const float*>(s.labels)})
        aside(v, {v, v + program_.rows});
      write(i, s.out, s.columns, list.out_unread[i]);
      write(i, s.saved, s.columns, list.saved_unread[i]);
    }
  }
  bool good() const { return good_; }
  std::vector<Value>& values() { return values_; }

 private:
  static Range range_of_matrix(const ChainMatrix& b) {
    return {b.at, b.at == nullptr ? b.at : b.at + int64{b.rows} * b.stride};
  }
  // What the chain writes is read as it was written, or not at all.
  void read(int step, ChainOperand& o, int columns, bool main) {
    if (o.at == nullptr) return;
    const Range range = range_of(o, columns, program_.rows);
    for (auto v = values_.rbegin(); v != values_.rend(); ++v) {
      if (!range.meets(range_of(*v->made, v->columns, program_.rows))) continue;
      good_ = good_ && o.at == v->made->at && o.stride == v->made->stride && columns == v->columns;
      v->last = step;
      if (main && v->next < 0) v->next = step;
      v->readers.push_back({step, &o});
      return;
    }
  }
  void aside(const float* at, const Range& range) {
    for (const Value& v : values_)
      good_ = good_ && (at == nullptr || !range.meets(range_of(*v.made, v.columns, program_.rows)));
  }
  void write(int step, ChainOperand& o, int columns, bool unread) {
    if (o.at != nullptr) values_.push_back({&o, step, columns, unread, -1, -1, {}});
  }

  ChainProgram& program_;
  std::vector<Value> values_;
  bool good_ = true;
};

// Shared memory in floats, given out by first fit to what is needed over a range of instructions.
class Places {
 public:
  int take(int size, int from, int to) {
    int at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (const Taken& t : taken_) {
        if (t.to < from || t.from > to || at + size <= t.at || at >= t.at + t.size) continue;
        at = t.at + t.size;
        moved = true;
      }
    }
    taken_.push_back({at, size, from, to});
    top_ = std::max(top_, at + size);
    return at;
  }
  int top() const { return top_; }

 private:
  struct Taken {
    int at, size, from, to;
  };
  std::vector<Taken> taken_;
  int top_ = 0;
};

int floats_of(const ChainMatrix& b, int granule) {
  return round_up(b.rows, granule) * padded(b.columns, granule);
}

bool same(const ChainMatrix& a, const ChainMatrix& b) {
  return a.at == b.at && a.rows == b.rows && a.columns == b.columns && a.stride == b.stride &&
         (a.form == ChainForm::kPanels) == (b.form == ChainForm::kPanels);
}

// One attempt at a layout of shared memory.
class Layout {
 public:
  // keep: values stay until they are read last; otherwise until the next product has read them, and are read
  // from device memory after that.
  Layout(ChainProgram& program, std::vector<Value>& values, bool keep) : p_(program) {
    for (Value& v : values) place(v, keep);
    weights_begin_ = places_.top();
    for (int i = 0; i < p_.n; ++i) p_.steps[i].b.first = first_of(i);
  }

  // Puts all weights into shared memory, then streams the largest ones until all fits. Floats, or -1.
  int fit(int floats, bool all_weights) {
    for (int i = 0; i < p_.n; ++i) p_.steps[i].b.place = is_product(i) ? 0 : -1;
    while (true) {
      const int size = arrange();
      if (size <= floats) return size;
      if (all_weights || !stream_largest()) return -1;
    }
  }

 private:
  bool is_product(int i) const { return p_.steps[i].kind == ChainKind::kProduct; }
  int first_of(int i) const {
    for (int j = 0; j < i; ++j)
      if (is_product(i) && is_product(j) && same(p_.steps[i].b, p_.steps[j].b)) return j;
    return i;
  }

  void place(Value& v, bool keep) {
    const bool sums = is_product(v.step) && v.made == &p_.steps[v.step].out;
    const int end = keep ? v.last : v.next;
    v.made->place = -1;
    for (auto& [step, operand] : v.readers) operand->place = -1;
    if (end < 0 && !sums) return;
    v.made->place = places_.take(p_.tile * padded(v.columns, p_.granule), v.step, std::max(end, v.step));
    bool all = true;
    for (auto& [step, operand] : v.readers) {
      if (step <= end)
        operand->place = v.made->place;
      else
        all = false;
    }
    if (v.unread && all) dropped_.push_back(v.made);
  }

  int arrange() {
    int top = weights_begin_;
    p_.a_piece = p_.b_piece = 0;
    for (int i = 0; i < p_.n; ++i) {
      ChainInstruction& s = p_.steps[i];
      if (!is_product(i)) continue;
      if (s.in.place < 0) p_.a_piece = p_.tile * padded(p_.piece, p_.granule);
      if (s.b.place < 0) {
        p_.b_piece = std::max(p_.b_piece, s.b.form == ChainForm::kByColumns
                                              ? round_up(s.columns, p_.granule) * padded(p_.piece, p_.granule)
                                              : p_.piece * padded(s.columns, p_.granule));
      } else if (s.b.first == i) {
        s.b.place = top;
        top += floats_of(s.b, p_.granule);
      } else {
        s.b.place = p_.steps[s.b.first].b.place;
      }
    }
    p_.staging = top;
    return top + 2 * (p_.a_piece + p_.b_piece);
  }

  bool stream_largest() {
    int largest = -1;
    for (int i = 0; i < p_.n; ++i)
      if (p_.steps[i].b.place >= 0 &&
          (largest < 0 || floats_of(p_.steps[i].b, p_.granule) > floats_of(p_.steps[largest].b, p_.granule)))
        largest = i;
    if (largest < 0) return false;
    const int first = p_.steps[largest].b.first;
    for (int i = 0; i < p_.n; ++i)
      if (p_.steps[i].b.first == first) p_.steps[i].b.place = -1;
    return true;
  }

 public:
  // What nobody reads outside and everybody inside finds in shared memory is not written.
  void drop_unread() {
    for (ChainOperand* const o : dropped_) o->at = nullptr;
  }

 private:
  ChainProgram& p_;
  Places places_;
  std::vector<ChainOperand*> dropped_;
  int weights_begin_ = 0;
};

// Matrix units take 16 rows at a time. float32 accuracy costs three products there, which pays where tiles
// are high enough for warps to use each operand several times; lower ones are bound by what they wait for.
ChainPath path_of(int tile, const DeviceTraits& traits, Precision precision) {
  if (traits.has_mma == 0 || tile < 16) return ChainPath::kPlain;
  if (precision == Precision::kTf32) return ChainPath::kTf32;
  if (precision == Precision::kBf16) return ChainPath::kBf16;
  return tile >= 64 ? ChainPath::kSplitTf32 : ChainPath::kPlain;
}

int granule_of(ChainPath path) { return path == ChainPath::kPlain ? 4 : 16; }

// k of a streamed piece, at most: short where a tile is high, so that two pieces of A and B are some 70 KB;
// long where it is low, so that 32 lanes that share a sum find 16 bytes each.
int longest_piece(int tile) { return tile >= 64 ? 32 : tile == 32 ? 64 : 128; }
constexpr int kShortestPiece = 16;  // what the widest instruction takes at once

// The best layout for tiles of that many rows: all on the chip; then values that are read again late come
// from L2; then weights do, in shorter and shorter pieces. Floats of shared memory, -1 if there are not
// enough.
int lay_out(ChainProgram& program, std::vector<Value>& values, int room) {
  for (const auto& [keep, all_weights] : {std::pair{true, true}, {false, true}, {false, false}}) {
    for (program.piece = longest_piece(program.tile); program.piece >= kShortestPiece; program.piece /= 2) {
      Layout layout(program, values, keep);
      const int floats = layout.fit(room, all_weights);
      if (floats < 0) continue;
      layout.drop_unread();
      return floats;
    }
  }
  return -1;
}

}  // namespace

bool plan_chain(const ChainStep* steps, std::size_t n, int64 rows, const DeviceTraits& traits,
                Precision precision, ChainLaunch& found) {
  ChainList list;
  if (!translate_chain(steps, n, rows, list)) return false;
  ChainProgram& program = list.program;
  Links links(list);
  if (!links.good()) return false;
  const int room = static_cast<int>(traits.shared_per_block / sizeof(float));
  // Few rows are spread over as many multiprocessors as there are, down to 4 a tile: below that the weights
  // that every block fetches outweigh what it computes.
  int tile = 128;
  while (tile > 4 && ceil_div(program.rows, tile) < traits.multiprocessors) tile /= 2;
  const int least = std::min(tile, 16);  // lower tiles would fetch streamed weights too often
  for (; tile >= least; tile /= 2) {
    program.path = path_of(tile, traits, precision);
    program.tile = tile;
    program.granule = granule_of(program.path);
    const int floats = lay_out(program, links.values(), room);
    if (floats < 0) continue;
    found.program = program;
    found.shared_bytes = static_cast<std::size_t>(floats) * sizeof(float);
    found.blocks =
        static_cast<unsigned>(std::min<int64>(ceil_div(program.rows, tile), int64{traits.multiprocessors}));
    return true;
  }
  return false;
}

}  // namespace hotloop::cuda
