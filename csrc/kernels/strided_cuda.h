// SPDX-License-Identifier: Apache-2.0
// Up to four dimensions of K operands with strides of their own, made ready on the host for a kernel:
// whatever lies one behind the other in every operand is one dimension, because a thread that looks for its
// element divides once for each. Dense tensors and scalars end as one dimension, rows beside a bias as two.
#pragma once

#include <utility>

#include "cuda/flat.h"
#include "kernels/args.h"

namespace hotloop::cuda {

constexpr int kInner = kMaxDims - 1;

template <int K>
struct Strided {
  int64 size[kMaxDims];
  int64 stride[K][kMaxDims];

  int64 elements() const { return size[0] * size[1] * size[2] * size[3]; }
  bool flat() const { return size[0] * size[1] * size[2] == 1; }

  // Dimensions of one element are dropped, the others joined and moved to the inner end.
  void merge() {
    int to = kInner;
    bool any = false;
    for (int d = kInner; d >= 0; --d) {
      const int64 n = size[d];
      if (n == 1) continue;
      if (any && continues(d, to)) {
        size[to] *= n;
        continue;
      }
      if (any) --to;
      any = true;
      move(d, to);
    }
    for (int d = 0; d < (any ? to : kMaxDims); ++d) {
      size[d] = 1;
      for (int k = 0; k < K; ++k) stride[k][d] = 0;
    }
  }

  // Dimensions in the order of the strides of operand k, the smallest innermost: where order is of no
  // concern.
  void sort_by(int k) {
    for (int i = 1; i < kMaxDims; ++i)
      for (int d = i; d > 0 && stride[k][d] > stride[k][d - 1]; --d) exchange(d, d - 1);
  }

  void exchange(int a, int b) {
    std::swap(size[a], size[b]);
    for (int k = 0; k < K; ++k) std::swap(stride[k][a], stride[k][b]);
  }

  // How many groups of four elements lie within rows, and may be loaded at once from every operand of stride
  // 1; 0 if not all of them may. `base`: of each operand.
  int64 groups_of_four(const float* const (&base)[K]) const {
    if (!flat() && size[kInner] % 4 != 0) return 0;
    for (int k = 0; k < K; ++k) {
      if (stride[k][kInner] != 1) continue;
      if (!aligned16(base[k])) return 0;
      for (int d = 0; d < kInner; ++d)
        if (stride[k][d] % 4 != 0) return 0;
    }
    return elements() / 4;
  }

  // Where element number `element`, in row-major order, is in each operand.
  HL_DEVICE void find(int64 element, int64 (&at)[K]) const {
    for (int k = 0; k < K; ++k) at[k] = 0;
    int64 rest = element;
    HL_UNROLL
    for (int d = kInner; d >= 0; --d) {
      if (size[d] == 1) continue;
      const int64 next = d == 0 ? 0 : quotient(rest, size[d]);
      const int64 i = rest - next * size[d];
      for (int k = 0; k < K; ++k) at[k] += i * stride[k][d];
      rest = next;
    }
  }

 private:
  bool continues(int d, int inner) const {
    for (int k = 0; k < K; ++k)
      if (stride[k][d] != stride[k][inner] * size[inner]) return false;
    return true;
  }
  void move(int from, int to) {
    size[to] = size[from];
    for (int k = 0; k < K; ++k) stride[k][to] = stride[k][from];
  }
};

// Four elements `stride` apart: one load, one number, or four loads.
HL_DEVICE Float4 load_four(const float* p, int64 stride) {
  if (stride == 1) return load4(p);
  if (stride == 0) {
    const float v = *p;
    return Float4{v, v, v, v};
  }
  return Float4{p[0], p[stride], p[2 * stride], p[3 * stride]};
}

}  // namespace hotloop::cuda
