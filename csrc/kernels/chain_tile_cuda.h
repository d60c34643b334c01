// SPDX-License-Identifier: Apache-2.0
// A block's tile in the chain kernel: its values in shared and device memory, and how matrices come in.
#pragma once

#include "kernels/chain_program.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

struct ChainTile {
  const ChainProgram& program;
  float* shared;
  int64 first;  // row of the batch
  int valid;    // rows that there are; the rest of the tile is computed on zeros and not written
};

// A value's tile wherever it is. Rows from `valid` on and columns from `columns` on read as zeros.
class ChainView {
 public:
  HL_DEVICE ChainView(const ChainTile& tile, const ChainOperand& o, int columns)
      : columns_(columns), valid_(tile.valid) {
    if (o.place >= 0) {
      at_ = tile.shared + o.place;
      stride_ = padded(columns, tile.program.granule);
      quads_ = shared_ = true;
    } else if (o.at != nullptr) {
      at_ = o.at + tile.first * o.stride;
      stride_ = o.stride;
      quads_ = o.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(o.at) % 16 == 0;
    }
  }
  HL_DEVICE explicit operator bool() const { return at_ != nullptr; }
  // One element; row < valid, column < columns.
  HL_DEVICE float operator()(int row, int column) const { return at_[row * stride_ + column]; }
  HL_DEVICE Float4 quad(int row, int column) const {
    const float* p = at_ + row * stride_ + column;
    if (shared_ || (quads_ && row < valid_ && column + 4 <= columns_)) return load4(p);
    const int left = row < valid_ ? columns_ - column : 0;
    return {left > 0 ? p[0] : 0.0f, left > 1 ? p[1] : 0.0f, left > 2 ? p[2] : 0.0f, left > 3 ? p[3] : 0.0f};
  }

 private:
  const float* at_ = nullptr;
  int stride_ = 0, columns_, valid_;
  bool quads_ = false, shared_ = false;
};

// Where a value goes: to shared memory, to device memory, or to both.
class ChainSink {
 public:
  HL_DEVICE ChainSink(const ChainTile& tile, const ChainOperand& o, int columns)
      : at_(o.at != nullptr ? o.at + tile.first * o.stride : nullptr),
        kept_(o.place >= 0 ? tile.shared + o.place : nullptr),
        stride_(o.stride),
        kept_stride_(padded(columns, tile.program.granule)),
        columns_(columns),
        valid_(tile.valid),
        quads_(o.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(o.at) % 16 == 0) {}
  HL_DEVICE explicit operator bool() const { return at_ != nullptr || kept_ != nullptr; }
  // One element; row < valid, column < columns.
  HL_DEVICE void put(int row, int column, float v) const {
    if (kept_ != nullptr) kept_[row * kept_stride_ + column] = v;
    if (at_ != nullptr) at_[row * stride_ + column] = v;
  }
  // column: a multiple of 4, up to the granule: what is past the columns becomes zeros.
  HL_DEVICE void quad(int row, int column, Float4 v) const {
    const int left = columns_ - column;
    if (left < 4) v = {left > 0 ? v.x : 0.0f, left > 1 ? v.y : 0.0f, left > 2 ? v.z : 0.0f, 0.0f};
    if (kept_ != nullptr) store4(kept_ + row * kept_stride_ + column, v);
    if (at_ == nullptr || row >= valid_) return;
    float* const p = at_ + row * stride_ + column;
    if (quads_ && left >= 4) return store4(p, v);
    if (left > 0) p[0] = v.x;
    if (left > 1) p[1] = v.y;
    if (left > 2) p[2] = v.z;
    if (left > 3) p[3] = v.w;
  }

 private:
  float *at_, *kept_;
  int stride_, kept_stride_, columns_, valid_;
  bool quads_;
};

// Whether copies to shared memory run beside the multiplying (sm_80 and up) or through registers.
template <bool async, int floats>
HL_DEVICE void bring(float* to, const float* from, bool ok) {
  if constexpr (async) {
    copy_async<floats * 4>(to, from, ok);
  } else if constexpr (floats == 4) {
    store4(to, ok ? load4(from) : Float4{0.0f, 0.0f, 0.0f, 0.0f});
  } else {
    *to = ok ? *from : 0.0f;
  }
}

// A part (rows, columns) of a matrix in device memory, to come to shared memory as (high, wide), multiples of
// 4, with zeros around it.
struct ChainPart {
  float* to;
  int to_stride, high, wide;
  const float* from;
  int64 stride;    // of its rows; of panels: elements from one panel to the next
  bool in_panels;  // of kPanel columns, rows one after the other
  int rows, columns;
};

template <bool async>
HL_DEVICE void bring_part(const ChainPart& p) {
  const bool quads = p.stride % 4 == 0 && reinterpret_cast<std::uintptr_t>(p.from) % 16 == 0;
  constexpr int kWide = static_cast<int>(kPanel);
  const int across = p.wide / 4;
  for (int q = static_cast<int>(threadIdx.x); q < p.high * across; q += kChainThreads) {
    const int r = q / across, c = 4 * (q % across);
    float* const at = p.to + r * p.to_stride + c;
    const float* const source =
        p.in_panels ? p.from + c / kWide * p.stride + r * kWide + c % kWide : p.from + r * p.stride + c;
    if (quads && (r >= p.rows || c + 4 <= p.columns || c >= p.columns)) {
      const bool ok = r < p.rows && c < p.columns;
      bring<async, 4>(at, ok ? source : p.from, ok);
    } else {
      for (int e = 0; e < 4; ++e) {
        const bool ok = r < p.rows && c + e < p.columns;
        bring<async, 1>(at + e, ok ? source + e : p.from, ok);
      }
    }
  }
}

// Of B the rows (stored by columns: the columns) k0 ... k0 + depth, to `to`.
HL_DEVICE ChainPart part_of(const ChainMatrix& b, int k0, int depth, int granule, int width, float* to) {
  const bool by_columns = b.form == ChainForm::kByColumns, in_panels = b.form == ChainForm::kPanels;
  const int rows = by_columns ? b.rows : depth, columns = by_columns ? depth : b.columns;
  const int64 step = by_columns ? 1 : in_panels ? kPanel : b.stride;
  return {to,
          padded(width, granule),
          round_up(rows, granule),
          round_up(columns, granule),
          b.at + k0 * step,
          in_panels ? b.rows * kPanel : b.stride,
          in_panels,
          rows,
          columns};
}

template <bool async>
HL_DEVICE void bring_done() {
  if constexpr (async) cp_commit();
}
template <bool async, int pending>
HL_DEVICE void bring_wait() {
  if constexpr (async) cp_wait<pending>();
  sync();
}

// All weights that have a place, for all tiles of the block.
template <bool async>
HL_DEVICE void bring_weights(const ChainProgram& program, float* shared) {
  for (int i = 0; i < program.n; ++i) {
    const ChainMatrix& b = program.steps[i].b;
    if (b.place < 0 || b.first != i) continue;
    const int depth = b.form == ChainForm::kByColumns ? b.columns : b.rows;
    bring_part<async>(part_of(b, 0, depth, program.granule, b.columns, shared + b.place));
  }
  bring_done<async>();
}

// A product's operands as far as they are in shared memory: k of both, A's rows, B's rows as stored.
struct ChainPiece {
  const float *a, *b;
  int a_stride, b_stride, depth;
};

// Piece number c of what does not wait in shared memory already, into buffer c % 2.
template <bool async>
HL_DEVICE void bring_piece(const ChainTile& t, const ChainInstruction& s, int c) {
  const int g = t.program.granule, length = t.program.piece, k0 = c * length;
  const int depth = s.depth - k0 < length ? s.depth - k0 : length;
  float* const a = t.shared + t.program.staging + c % 2 * (t.program.a_piece + t.program.b_piece);
  HL_NO_UNROLL
  for (int operand = s.in.place < 0 ? 0 : 1; operand < (s.b.place < 0 ? 2 : 1); ++operand) {
    ChainPart part = part_of(s.b, k0, depth, g, s.b.form == ChainForm::kByColumns ? length : s.columns,
                             a + t.program.a_piece);
    if (operand == 0)
      part = {a,
              padded(length, g),
              t.program.tile,
              round_up(depth, g),
              s.in.at + t.first * s.in.stride + k0,
              s.in.stride,
              false,
              t.valid,
              depth};
    bring_part<async>(part);
  }
  bring_done<async>();
}

// body(piece) for the product's pieces of k, the next one under way meanwhile; in shared memory all is one.
template <bool async, class Body>
HL_DEVICE void for_pieces(const ChainTile& t, const ChainInstruction& s, Body body) {
  const ChainProgram& program = t.program;
  const int g = program.granule;
  const bool by_columns = s.b.form == ChainForm::kByColumns;
  const bool brings_a = s.in.place < 0, brings_b = s.b.place < 0;
  const int length = brings_a || brings_b ? program.piece : s.depth;
  const int pieces = s.depth > 0 ? (s.depth + length - 1) / length : 0;
  const bool brings = brings_a || brings_b;
  for (int c = brings ? -1 : 0; c < pieces; ++c) {
    const bool more = brings && c + 1 < pieces;
    if (more) bring_piece<async>(t, s, c + 1);
    if (c < 0) continue;
    const int k0 = c * length;
    const float* const staged = t.shared + program.staging + c % 2 * (program.a_piece + program.b_piece);
    ChainPiece piece;
    piece.depth = s.depth - k0 < length ? s.depth - k0 : length;
    piece.a = brings_a ? staged : t.shared + s.in.place + k0;
    piece.a_stride = padded(brings_a ? program.piece : s.depth, g);
    piece.b_stride =
        brings_b && by_columns ? padded(program.piece, g) : padded(by_columns ? s.depth : s.columns, g);
    piece.b =
        brings_b ? staged + program.a_piece : t.shared + s.b.place + (by_columns ? k0 : k0 * piece.b_stride);
    if (more)
      bring_wait<async, 1>();
    else if (brings)
      bring_wait<async, 0>();
    body(piece);
    if (brings) sync();  // before the buffer is filled again
  }
}

}  // namespace hotloop::cuda
