// SPDX-License-Identifier: Apache-2.0
// How products on the multiply-add units read their operands. Both are seen alike: element (r, p), r being a
// row of A or a column of B, p the index that is summed over. Whatever the strides, four neighbours (a quad)
// are taken at a time, along p or along r, whichever lies closer in memory: one access of 16 bytes where a
// quad is 16 aligned bytes, else up to four of 4 bytes, most of which find their sector in L1. So one kernel
// serves all transposes; the choice is the same for a whole launch and costs a branch per tile of k.
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

struct MatrixView {
  const float* data;
  int64 rows;  // r is below it
  int64 stride_r, stride_p;
  int64 panel;       // elements from one panel of 16 r to the next; 0: not in panels
  bool along_depth;  // quads lie along p
  bool aligned;

  HL_DEVICE const float* at(int64 r, int64 p) const {
    return panel == 0 ? data + r * stride_r + p * stride_p
                      : data + r / kPanel * panel + p * kPanel + r % kPanel;
  }
  HL_DEVICE int64 unit() const { return along_depth ? stride_p : stride_r; }  // between elements of a quad
};

inline MatrixView strided_view(const float* data, int64 rows, int64 stride_r, int64 stride_p) {
  const auto size = [](int64 stride) { return stride < 0 ? -stride : stride; };
  const bool along_depth = size(stride_p) < size(stride_r);
  const bool aligned = (along_depth ? stride_p : stride_r) == 1 &&
                       (along_depth ? stride_r : stride_p) % 4 == 0 &&
                       reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  return {data, rows, stride_r, stride_p, 0, along_depth, aligned};
}

inline MatrixView view_of_a(const MatmulArgs<float>& a) {
  return strided_view(a.a, a.m, a.a_stride_m, a.a_stride_k);
}
inline MatrixView view_of_b(const MatmulArgs<float>& a) {
  if (a.b_packed == 0) return strided_view(a.b, a.n, a.b_stride_n, a.b_stride_k);
  return {a.b, a.n, 1, kPanel, a.k * kPanel, false, reinterpret_cast<std::uintptr_t>(a.b) % 16 == 0};
}

// How far matrix blockIdx.z of a batch is from the first, in an operand that moves on by `step`.
HL_DEVICE int64 batch_offset(const MatmulBatch& batch, const std::int64_t (&step)[2]) {
  const auto inner = static_cast<unsigned>(batch.inner), i = blockIdx.z / inner;
  return i * step[0] + (blockIdx.z - i * inner) * step[1];
}
HL_DEVICE MatrixView moved(MatrixView view, int64 offset) {
  view.data += offset;
  return view;
}
inline unsigned matrices_of(const MatmulBatch& batch) {
  return static_cast<unsigned>(batch.outer * batch.inner);
}
inline bool steps_by_quads(const std::int64_t (&step)[2]) { return step[0] % 4 == 0 && step[1] % 4 == 0; }

// Both operands of a launch.
struct MatmulOperands {
  MatrixView a, b;
};
inline MatmulOperands operands_of(const MatmulArgs<float>& a, const MatmulBatch& batch) {
  MatmulOperands x{view_of_a(a), view_of_b(a)};
  x.a.aligned = x.a.aligned && steps_by_quads(batch.a);
  x.b.aligned = x.b.aligned && steps_by_quads(batch.b);
  return x;
}

// The first `count` of four elements, zeros for the others.
HL_DEVICE Float4 load_quad(const float* p, int64 unit, int count, bool aligned) {
  if (aligned && count == 4) return load4(p);
  return {count > 0 ? p[0] : 0.0f, count > 1 ? p[unit] : 0.0f, count > 2 ? p[2 * unit] : 0.0f,
          count > 3 ? p[3 * unit] : 0.0f};
}

HL_DEVICE int at_most_4(int64 left) { return left < 0 ? 0 : left > 4 ? 4 : static_cast<int>(left); }

// Brings tiles of D steps of k by R rows into shared memory, k-major, by way of registers: the loads of the
// next tile are under way while this one is multiplied.
//
// Rows of the tile are padded by 4 floats: they stay aligned to 16 bytes, and four steps of k are 16 banks
// apart (4 (R + 4) mod 32 = 16 for R a multiple of 16). Quads along p are dealt out so that a warp holds 16
// rows and two quads of each: the 32 elements that it stores at once lie in 32 banks.
template <int R, int D, int kThreads>
class TileLoader {
 public:
  static constexpr int kStride = R + 4;
  static constexpr int kAll = R * D / 4;  // quads
  static constexpr int kMine = (kAll + kThreads - 1) / kThreads;
  static_assert(R % 16 == 0 && D % 8 == 0);

  HL_DEVICE TileLoader(const MatrixView& view, int64 row, int64 depth)
      : unit_(view.unit()),
        step_(D * (view.panel == 0 ? view.stride_p : kPanel)),
        along_depth_(view.along_depth),
        aligned_(view.aligned) {
    HL_UNROLL
    for (int q = 0; q < kMine; ++q) {
      const int64 r = row + row_of(q);
      const bool there = index_of(q) < kAll && r < view.rows;
      at_[q] = view.at(there ? r : 0, there ? depth + depth_of(q) : 0);
      rows_[q] = !there ? 0 : along_depth_ ? 4 : at_most_4(view.rows - r);
    }
  }

  // The next tile, of which `left` steps of k are there.
  HL_DEVICE void fetch(int64 left) {
    HL_UNROLL
    for (int q = 0; q < kMine; ++q) {
      const int deep = at_most_4(left - depth_of(q));
      const int count = along_depth_ ? (deep < rows_[q] ? deep : rows_[q]) : deep > 0 ? rows_[q] : 0;
      quad_[q] = load_quad(at_[q], unit_, count, aligned_);
      at_[q] += step_;
    }
  }

  // What was fetched, to tile (D, kStride).
  HL_DEVICE void put(float* tile) const {
    HL_UNROLL
    for (int q = 0; q < kMine; ++q) {
      if (kAll % kThreads != 0 && index_of(q) >= kAll) continue;
      float* const to = tile + depth_of(q) * kStride + row_of(q);
      if (along_depth_) {
        to[0] = quad_[q].x;
        to[kStride] = quad_[q].y;
        to[2 * kStride] = quad_[q].z;
        to[3 * kStride] = quad_[q].w;
      } else {
        store4(to, quad_[q]);
      }
    }
  }

 private:
  HL_DEVICE static int index_of(int q) { return static_cast<int>(threadIdx.x) + q * kThreads; }
  HL_DEVICE int row_of(int q) const {
    const int i = index_of(q);
    return along_depth_ ? i % 16 + i / (4 * D) * 16 : i % (R / 4) * 4;
  }
  HL_DEVICE int depth_of(int q) const {
    const int i = index_of(q);
    return along_depth_ ? i / 16 % (D / 4) * 4 : i / (R / 4);
  }

  const float* at_[kMine];
  Float4 quad_[kMine];
  int rows_[kMine];  // elements of the quad, where k does not end
  int64 unit_, step_;
  bool along_depth_, aligned_;
};

}  // namespace hotloop::cuda
