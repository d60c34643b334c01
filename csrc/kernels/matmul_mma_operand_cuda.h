// SPDX-License-Identifier: Apache-2.0
// How products on the matrix units bring their operands to registers: tiles of R rows (of A, or columns of B)
// by 32 steps of k go to shared memory as they lie in memory, by asynchronous copies, and from there to
// fragments. A copy can neither transpose nor convert, so a tile has one of two forms: lines along k, R of
// them, or lines along the rows, 32 of them. Both are read 16 bytes at a time, by the same number of
// accesses.
//
// That works for either form because an instruction's own order of rows and of k is free: any will do that A
// and B, or A and the output, agree upon. Thread 4 g + t of a warp stands for steps 4 t ... 4 t + 3 of 16
// (the instructions say t, t + 4 or 2 t, 2 t + 1, ...), and for rows mma_row(s) of 32, s = 0 ... 3 (they say
// g, g + 8). Four steps of a row are one access to a line along k, four rows of a step one to a line along
// the rows, and in the output four columns of a thread are neighbours.
#pragma once

#include "kernels/matmul_operand_cuda.h"

namespace hotloop::cuda {

constexpr int kMmaDepth = 32;  // steps of k of a tile: with lines along k, a line of the cache each
constexpr int kMmaHalf = 16;   // steps of k of a set of fragments

// Row s (0 ... 3) of the 32 rows that a warp's threads share out.
HL_DEVICE int mma_row(int s) {
  const int g = lane_id() / 4;
  return g % 2 * 16 + g / 2 * 4 + s;
}

// (R, 32) in lines of kQuads times four floats. Eight threads read 16 bytes each at a time, and must find
// them in all 32 banks. Lines begin at bank 0 or, along k, all do: quads of a line change places with its
// number. Along k the eight hold rows of two g, 16 apart, and t of each: half a line is swapped every 16
// lines. Along the rows they hold lines 4 t + s, and of each quads g / 2 and 4 + g / 2: t is added, bitwise.
// Copies write eight quads of one line at a time: all banks, in either form.
template <bool along_depth, int R>
struct MmaTile {
  static constexpr int kLines = along_depth ? R : kMmaDepth;
  static constexpr int kQuads = (along_depth ? kMmaDepth : R) / 4;
  static_assert(R % 32 == 0);

  HL_DEVICE static int at(int line, int quad) {
    return (line * kQuads + (quad ^ (along_depth ? line / 16 % 2 * 4 : line / 4 % 4))) * 4;
  }

  // x (4 groups, 4): rows first + 32 i + mma_row(s) as x[4 i + s], by steps 16 half + 4 t ... of k.
  template <int groups>
  HL_DEVICE static void load(const float* tile, int first, int half, float (&x)[4 * groups][4]) {
    const int t = lane_id() % 4;
    const float* const from = along_depth ? tile + at(first + mma_row(0), kMmaHalf / 4 * half + t)
                                          : tile + at(kMmaHalf * half + 4 * t, (first + mma_row(0)) / 4);
    HL_UNROLL
    for (int i = 0; i < groups; ++i) {
      HL_UNROLL
      for (int s = 0; s < 4; ++s) {  // the places of quads are those of s = 0, i = 0
        const Float4 v = load4(from + (along_depth ? (32 * i + s) * kQuads * 4 : s * kQuads * 4 + 32 * i));
        const float four[4] = {v.x, v.y, v.z, v.w};
        HL_UNROLL
        for (int e = 0; e < 4; ++e) (along_depth ? x[4 * i + s][e] : x[4 * i + e][s]) = four[e];
      }
    }
  }

  // Sum over k of row r. Threads of neighbouring rows begin at different quads of their lines: all banks.
  HL_DEVICE static float sum_row(const float* tile, int r) {
    float sum = 0.0f;
    if constexpr (along_depth) {
      for (int i = 0; i < kQuads; ++i) {
        const Float4 v = load4(tile + (r * kQuads + (i + r) % kQuads) * 4);
        sum += (v.x + v.y) + (v.z + v.w);
      }
    } else {
      for (int p = 0; p < kMmaDepth; ++p) sum += tile[at(p, r / 4) + r % 4];
    }
    return sum;
  }
};

// Copies one tile after the other along k, of the view's rows from `row` on and steps [depth, end). What is
// outside of them is zero. `wide`: four neighbours are 16 aligned bytes, all there or none.
template <bool along_depth, int R, int kThreads>
class MmaFetch {
  using Tile = MmaTile<along_depth, R>;
  static constexpr int kStep = kThreads / Tile::kQuads;  // lines between a thread's quads
  static constexpr int kMine = Tile::kLines / kStep;
  static_assert(kThreads % Tile::kQuads == 0 && Tile::kLines % kStep == 0);

 public:
  HL_DEVICE MmaFetch(const MatrixView& view, bool wide, int64 row, int64 depth, int64 end)
      : line_(static_cast<int>(threadIdx.x) / Tile::kQuads),
        quad_(static_cast<int>(threadIdx.x) % Tile::kQuads),
        wide_(wide) {
    const int64 stride = along_depth ? view.stride_r : view.stride_p;
    const int64 first_line = (along_depth ? row : depth) + line_;
    const int64 first = (along_depth ? depth : row) + quad_ * 4;
    from_ = view.data + first_line * stride + first;
    step_ = kStep * stride;
    advance_ = along_depth ? kMmaDepth : kMmaDepth * stride;
    lines_ = static_cast<int>((along_depth ? view.rows : end) - first_line);
    left_ = static_cast<int>((along_depth ? end : view.rows) - first);
  }

  HL_DEVICE void operator()(float* tile) {
    const float* from = from_;
    if (wide_) {
      HL_UNROLL
      for (int q = 0; q < kMine; ++q, from += step_)
        copy_async<16>(tile + Tile::at(line_ + q * kStep, quad_), from, left_ > 0 && q * kStep < lines_);
    } else {
      HL_NO_UNROLL
      for (int q = 0; q < kMine; ++q, from += step_) {
        float* const to = tile + Tile::at(line_ + q * kStep, quad_);
        HL_UNROLL
        for (int e = 0; e < 4; ++e) copy_async<4>(to + e, from + e, e < left_ && q * kStep < lines_);
      }
    }
    from_ += advance_;
    (along_depth ? left_ : lines_) -= kMmaDepth;
  }

 private:
  const float* from_;     // this thread's first quad of the next tile
  int64 step_, advance_;  // elements to its next quad, to the next tile
  int line_, quad_;       // where the first lies in the tile
  int lines_, left_;      // lines from it on, elements of its line from it on, that are there
  bool wide_;
};

}  // namespace hotloop::cuda
