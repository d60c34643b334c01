// SPDX-License-Identifier: Apache-2.0
// Copies a matrix into panels of 16 columns, k-major inside: the form of B that the matmul tile reads
// without a stride. Either axis may be the contiguous one; a transpose goes through blocks of registers.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

// Bytes of panels that are not to be kept in the caches: they would drive out what they are made from, and be
// gone themselves before they are read. Stores past the caches also save reading what they overwrite: a
// transpose of 16 MB takes a quarter of the time.
[[maybe_unused]] constexpr int64 kStreamBytes = int64{4} << 20;

// A row of a panel; streams it if that is `past_caches`, and possible with a line of its own.
template <bool past_caches, class real>
HOTLOOP_INLINE void put(Vec<real> row, real* out) {
#if defined(__AVX512F__)
  if constexpr (past_caches) return stream(row, out);
#endif
  row.store(out);
}

template <class real>
bool streams([[maybe_unused]] const PackPanelsArgs<real>& args) {
#if defined(__AVX512F__)
  const auto bytes = ceil_div(args.n, kPanel) * kPanel * args.k * static_cast<int64>(sizeof(real));
  return bytes >= kStreamBytes && reinterpret_cast<__UINTPTR_TYPE__>(args.out) % 64 == 0;
#else
  return false;
#endif
}

// Rows of panels (16 elements each) of one chunk, out of so many: whole squares, for what is transposed.
constexpr int64 pack_chunk(int64 rows) {
  return ceil_div(even_chunk(rows * kPanel), kPanel * kPanel) * kPanel;
}

// Rows contiguous: out[i][j] = x[i*stride_k + j], `columns` of them, then zeros.
template <bool past_caches, class real>
void copy_rows(const real* x, int64 stride_k, int64 rows, int64 columns, real* out) {
  constexpr int64 width = Vec<real>::width;
  for (int64 i = 0; i < rows; ++i) {
    for (int64 j = 0; j < kPanel; j += width) {
      const int64 left = columns - j < 0 ? 0 : columns - j < width ? columns - j : width;
      put<past_caches>(load(x + i * stride_k + j, left), out + i * kPanel + j);
    }
  }
}

// Columns contiguous: out[i][j] = x[i + j*stride_n], by squares of width x width elements.
template <bool past_caches, class real>
void transpose_rows(const real* x, int64 stride_n, int64 rows, int64 columns, real* out) {
  using V = Vec<real>;
  for (int64 j = 0; j < kPanel; j += V::width) {
    for (int64 i = 0; i < rows; i += V::width) {
      const int64 height = rows - i < V::width ? rows - i : V::width;
      V square[V::width];
      if (height == V::width &&
          columns - j >= V::width) {  // a loop of its own, so that the square is in registers
        load_transposed(x + i + j * stride_n, stride_n, square);
        for (int64 lane = 0; lane < V::width; ++lane) {
          put<past_caches>(square[lane], out + (i + lane) * kPanel + j);
        }
        continue;
      }
      for (int64 lane = 0; lane < V::width; ++lane) {
        square[lane] = j + lane < columns ? load(x + i + (j + lane) * stride_n, height) : V::zero();
      }
      transpose(square);
      for (int64 lane = 0; lane < height; ++lane) {
        put<past_caches>(square[lane], out + (i + lane) * kPanel + j);
      }
    }
  }
}

// `rows` rows of one panel.
template <bool past_caches, class real>
void pack_rows(const PackPanelsArgs<real>& args, const real* x, int64 rows, int64 columns, real* out) {
  if (args.stride_n == 1) {
    copy_rows<past_caches>(x, args.stride_k, rows, columns, out);
  } else if (args.stride_k == 1) {
    transpose_rows<past_caches>(x, args.stride_n, rows, columns, out);
  } else {
    for (int64 i = 0; i < rows; ++i) {
      for (int64 j = 0; j < kPanel; ++j) {
        out[i * kPanel + j] = j < columns ? x[i * args.stride_k + j * args.stride_n] : real(0);
      }
    }
  }
}

}  // namespace

template <class real>
int64 pack_panels_chunks(const PackPanelsArgs<real>& args) {
  const int64 rows = ceil_div(args.n, kPanel) * args.k;
  return ceil_div(rows, pack_chunk(rows));
}

template <class real>
void pack_panels_run(const PackPanelsArgs<real>& args, const StepContext&, int64 chunk) {
  const int64 all_rows = ceil_div(args.n, kPanel) * args.k;
  const Range range = chunk_range(chunk, pack_chunk(all_rows), all_rows);
  const bool streamed = streams(args);
  for (int64 row = range.begin; row < range.end;) {
    const int64 panel = row / args.k;
    const int64 first = row - panel * args.k;
    const int64 rows = args.k - first < range.end - row ? args.k - first : range.end - row;
    const int64 columns = args.n - panel * kPanel < kPanel ? args.n - panel * kPanel : kPanel;
    const real* x = args.x + first * args.stride_k + panel * kPanel * args.stride_n;
    real* out = args.out + row * kPanel;
    if (streamed) {
      pack_rows<true>(args, x, rows, columns, out);
    } else {
      pack_rows<false>(args, x, rows, columns, out);
    }
    row += rows;
  }
#if defined(__AVX512F__)
  if (streamed) streams_done();
#endif
}

HOTLOOP_INSTANTIATE(pack_panels, PackPanelsArgs)

}  // namespace hotloop::HOTLOOP_ISA
