// SPDX-License-Identifier: Apache-2.0
// Copies a matrix into panels of 16 columns, k-major inside: the form of B that the matmul tile reads
// without a stride. Either axis may be the contiguous one; a transpose goes through blocks of registers.
#include "kernels/panels.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

// Bytes of panels that are not to be kept in the caches: they would drive out what they are made from, and be
// gone themselves before they are read. Stores past the caches also save reading what they overwrite: a
// transpose of 16 MB takes a quarter of the time.
[[maybe_unused]] constexpr int64 kStreamBytes = int64{4} << 20;

template <class real>
bool streams([[maybe_unused]] const PackPanelsArgs<real>& args) {
#if defined(__AVX512F__)
  const auto bytes = ceil_div(args.n, kPanel) * kPanel * args.k * static_cast<int64>(sizeof(real));
  return bytes >= kStreamBytes && reinterpret_cast<__UINTPTR_TYPE__>(args.out) % 64 == 0;
#else
  return false;
#endif
}

// Panels that are written side by side, where rows of x are contiguous: 512 bytes of a row are read in one
// go. Panel by panel it would be a line of every row, which no prefetcher foresees where rows are pages, and
// a row that does not begin on a line would have each line read twice: 2 to 4 times as long.
constexpr int64 kPanelGroup = 8;

// A chunk: some groups of panels from the first k to the last, or of one group a piece of k.
struct PackGrid {
  int64 group;                 // panels that are written side by side
  int64 panels, rows;          // of one chunk
  int64 panels_all, rows_all;  // of the matrix
  int64 row_chunks;            // chunks of k vary fastest

  template <class real>
  explicit PackGrid(const PackPanelsArgs<real>& args)
      : panels_all(ceil_div(args.n, kPanel)), rows_all(args.k) {
    group = args.stride_n != 1 || panels_all < 1 ? 1 : panels_all < kPanelGroup ? panels_all : kPanelGroup;
    const int64 step = kPanel * group, size = even_chunk(panels_all * rows_all * kPanel);
    const bool whole = step * rows_all <= size;
    rows = whole ? (rows_all < 1 ? 1 : rows_all) : ceil_div(size, step * kPanel) * kPanel;
    panels = whole && rows_all > 0 ? size / (step * rows_all) * group : group;
    row_chunks = ceil_div(rows_all, rows);
  }
  int64 chunks() const { return row_chunks * ceil_div(panels_all, panels); }
};

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

// `columns` columns, of more than a panel only where rows are contiguous.
template <bool past_caches, class real>
void pack_rows(const PackPanelsArgs<real>& args, const real* x, int64 rows, int64 columns, real* out) {
  if (args.stride_n == 1) {
    copy_to_panels<past_caches>(x, args.stride_k, rows, columns, out, args.k * kPanel);
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
  return PackGrid(args).chunks();
}

template <class real>
void pack_panels_run(const PackPanelsArgs<real>& args, const StepContext&, int64 chunk) {
  const PackGrid grid(args);
  const Range rows = chunk_range(chunk % grid.row_chunks, grid.rows, grid.rows_all);
  const Range panels = chunk_range(chunk / grid.row_chunks, grid.panels, grid.panels_all);
  const bool streamed = streams(args);
  for (int64 panel = panels.begin; panel < panels.end; panel += grid.group) {
    const int64 last = panel + grid.group < panels.end ? panel + grid.group : panels.end;
    const int64 column = panel * kPanel, columns = (last * kPanel < args.n ? last * kPanel : args.n) - column;
    const real* x = args.x + rows.begin * args.stride_k + column * args.stride_n;
    real* out = args.out + (panel * args.k + rows.begin) * kPanel;
    if (streamed) {
      pack_rows<true>(args, x, rows.end - rows.begin, columns, out);
    } else {
      pack_rows<false>(args, x, rows.end - rows.begin, columns, out);
    }
  }
#if defined(__AVX512F__)
  if (streamed) streams_done();
#endif
}

HOTLOOP_INSTANTIATE(pack_panels, PackPanelsArgs)

}  // namespace hotloop::HOTLOOP_ISA
