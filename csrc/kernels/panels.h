// SPDX-License-Identifier: Apache-2.0
// Copies rows into panels of 16 columns, k-major inside: the form of B that the matmul tile reads without a
// stride. Eight vectors of a row are read before any is written, which a compiler would not dare.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// A row of a panel; streams it if that is `past_caches`, and possible with a line of its own.
template <bool past_caches, class real>
HOTLOOP_INLINE void put(Vec<real> row, real* out) {
#if defined(__AVX512F__)
  if constexpr (past_caches) return stream(row, out);
#endif
  row.store(out);
}

// out[j/16*step + i*16 + j%16] = x[i*stride + j], `columns` of them, then zeros to the panel's end.
template <bool past_caches, class real>
void copy_to_panels(const real* x, int64 stride, int64 rows, int64 columns, real* out, int64 step) {
  using V = Vec<real>;
  constexpr int64 kVectors = 8;
  const auto to = [&](int64 j) { return out + j / kPanel * step + j % kPanel; };
  int64 j = 0;
  for (; j + kVectors * V::width <= columns; j += kVectors * V::width) {
    for (int64 i = 0; i < rows; ++i) {
      V row[kVectors];
      for (int64 v = 0; v < kVectors; ++v) row[v] = V::load(x + i * stride + j + v * V::width);
      for (int64 v = 0; v < kVectors; ++v) put<past_caches>(row[v], to(j + v * V::width) + i * kPanel);
    }
  }
  for (; j + V::width <= columns; j += V::width) {
    for (int64 i = 0; i < rows; ++i) put<past_caches>(V::load(x + i * stride + j), to(j) + i * kPanel);
  }
  for (; j < columns || j % kPanel != 0; j += V::width) {
    const int64 left = columns - j < 0 ? 0 : columns - j;
    for (int64 i = 0; i < rows; ++i)
      put<past_caches>(V::load_n(x + i * stride + j, left), to(j) + i * kPanel);
  }
}

}  // namespace hotloop::HOTLOOP_ISA
