// SPDX-License-Identifier: Apache-2.0
// Walks up to four dimensions of K operands with strides of their own. Dimensions that lie one behind the
// other in every operand are merged first, so dense tensors, scalars and row vectors become one or two
// loops; what remains is cut into segments along the innermost dimension.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

template <int K>
struct Strided {
  int64 size[kMaxDims];
  int64 stride[K][kMaxDims];

  int64 elements() const { return size[0] * size[1] * size[2] * size[3]; }

  // Whether dimension d continues the innermost one in every operand.
  bool continues(int d) const {
    for (int k = 0; k < K; ++k) {
      if (stride[k][d] != stride[k][kMaxDims - 1] * size[kMaxDims - 1]) return false;
    }
    return true;
  }

  void merge() {
    constexpr int inner = kMaxDims - 1;
    for (int d = inner - 1; d >= 0; --d) {
      if (size[d] == 1) continue;
      if (size[inner] == 1) {
        for (int k = 0; k < K; ++k) stride[k][inner] = stride[k][d];
      } else if (!continues(d)) {
        return;
      }
      size[inner] *= size[d];
      size[d] = 1;
    }
  }

  // body(offsets[K], count) for each segment of the elements in range, in row-major order.
  template <class Body>
  HOTLOOP_INLINE void for_segments(Range range, Body&& body) const {
    constexpr int inner = kMaxDims - 1;
    int64 index[kMaxDims];
    int64 rest = range.begin;
    for (int d = inner; d >= 0; --d) {
      index[d] = rest % size[d];
      rest /= size[d];
    }
    for (int64 at = range.begin; at < range.end;) {
      int64 offset[K] = {};
      for (int k = 0; k < K; ++k) {
        for (int d = 0; d < kMaxDims; ++d) offset[k] += index[d] * stride[k][d];
      }
      const int64 left = size[inner] - index[inner];
      const int64 count = left < range.end - at ? left : range.end - at;
      body(offset, count);
      at += count;
      index[inner] = 0;
      for (int d = inner - 1; d >= 0 && ++index[d] == size[d]; --d) index[d] = 0;
    }
  }
};

// n <= width elements, `stride` apart.
template <class real>
HOTLOOP_INLINE Vec<real> gather(const real* p, int64 stride, int64 n) {
  if (stride == 1) return load(p, n);
  if (stride == 0) return Vec<real>(*p);
  real lanes[Vec<real>::width] = {};
  for (int64 i = 0; i < n; ++i) lanes[i] = p[i * stride];
  return Vec<real>::load(lanes);
}

}  // namespace hotloop::HOTLOOP_ISA
