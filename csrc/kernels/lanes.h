// SPDX-License-Identifier: Apache-2.0
// The loops shared by the kernels of rows and columns: over a vector with its tail, sums along a row, and
// sums down the columns. The caller's body takes (offset, n) and works on n <= Vec::width elements, so one
// body serves full vectors and tails. Every order of summation is fixed by the length summed alone.
#pragma once

#include "kernels/kernel.h"
#include "kernels/vec.h"

// Marks a lambda that is a loop's body, so that n is a constant where the vector is full.
#define HOTLOOP_BODY __attribute__((always_inline))

namespace hotloop::HOTLOOP_ISA {

template <class real>
HOTLOOP_INLINE Vec<real> load(const real* p, int64 n) {
  return n == Vec<real>::width ? Vec<real>::load(p) : Vec<real>::load_n(p, n);
}
template <class real>
HOTLOOP_INLINE void store(Vec<real> v, real* p, int64 n) {
  if (n == Vec<real>::width) {
    v.store(p);
  } else {
    v.store_n(p, n);
  }
}

// The transpose of a square in memory: columns[i] lane j = p[j*stride + i]. A unit may have its own.
template <class real>
HOTLOOP_INLINE void load_transposed(const real* p, int64 stride, Vec<real> (&columns)[Vec<real>::width]) {
  for (int64 i = 0; i < Vec<real>::width; ++i) columns[i] = Vec<real>::load(p + i * stride);
  transpose(columns);
}

// A vector of an operand that may be absent, or its neutral value.
template <class real>
HOTLOOP_INLINE Vec<real> load_or(const real* p, int64 i, int64 n, real neutral) {
  return p != nullptr ? load(p + i, n) : Vec<real>(neutral);
}

// v with the lanes from n on replaced by `other`.
template <class real>
HOTLOOP_INLINE Vec<real> first_or(Vec<real> v, int64 n, Vec<real> other) {
  return n == Vec<real>::width ? v : select(Mask<real>::first(n), v, other);
}

// body(i, n) over [begin, end)
template <class real, class Body>
HOTLOOP_INLINE void for_lanes(int64 begin, int64 end, Body&& body) {
  constexpr int64 width = Vec<real>::width;
  int64 i = begin;
  for (; i + width <= end; i += width) body(i, width);
  if (i < end) body(i, end - i);
}

// A run of 1024 is 128 vectors: 32 additions per lane and accumulator keep its rounding near one ulp.
constexpr int64 kSumRun = 1024;

// total[k] = sum over [0, count) of the k-th vector of body(i, n, vectors[K]); the body leaves 0 in lanes
// from n on. Runs are summed in `real` with four accumulators, which hide the latency, and added in double.
template <class real, int K, class Body>
HOTLOOP_INLINE void sum_row(int64 count, double (&total)[K], Body&& body) {
  using V = Vec<real>;
  constexpr int64 width = V::width;
  for (int k = 0; k < K; ++k) total[k] = 0.0;
  for (int64 i = 0; i < count;) {
    const int64 end = count - i < kSumRun ? count : i + kSumRun;
    V sums[4][K];
    for (int u = 0; u < 4; ++u) {
      for (int k = 0; k < K; ++k) sums[u][k] = V::zero();
    }
    const auto add = [&](int u, int64 at, int64 n) HOTLOOP_BODY {
      V terms[K];
      body(at, n, terms);
      for (int k = 0; k < K; ++k) sums[u][k] = sums[u][k] + terms[k];
    };
    for (; i + 4 * width <= end; i += 4 * width) {
      add(0, i, width);
      add(1, i + width, width);
      add(2, i + 2 * width, width);
      add(3, i + 3 * width, width);
    }
    for (; i + width <= end; i += width) add(0, i, width);
    if (i < end) add(1, i, end - i);
    i = end;
    for (int k = 0; k < K; ++k) {
      total[k] += static_cast<double>(sum((sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k])));
    }
  }
}

// The largest of x (count) that is not NaN; -inf if there is none.
template <class real>
HOTLOOP_INLINE real max_row(const real* x, int64 count) {
  using V = Vec<real>;
  const V lowest(-static_cast<real>(__builtin_inf()));
  V best0 = lowest;
  V best1 = lowest;
  int64 i = 0;
  for (; i + 2 * V::width <= count; i += 2 * V::width) {
    best0 = max(V::load(x + i), best0);
    best1 = max(V::load(x + i + V::width), best1);
  }
  for_lanes<real>(i, count, [&](int64 at, int64 n) HOTLOOP_BODY {
    best0 = max(first_or(load(x + at, n), n, lowest), best0);
  });
  return max_lane(max(best0, best1));
}

// Rows summed in registers before the sums of a strip are written. Few columns: eight, so that totals are
// seldom touched. Many: two, because memory is then read in long pieces along its rows, which prefetchers
// follow; eight take up to twice as long. A rule on the matrix alone, because it decides the order of the
// sums. They are added up over 64 rows before they join the totals, so that the error grows with rows / 64
// instead of rows.
constexpr int64 strip_rows(int64 cols) { return cols < 256 ? 8 : 2; }
constexpr int64 kColumnRun = 64;
constexpr int64 kMaxColumns = 1024;  // of a block of columns: its totals are on the stack
// Whole vectors of totals are read and written: what was stored in part cannot be read on before it is in L1.
constexpr int64 kColumnTotals = kMaxColumns + kPanel;

// totals[k] (n columns, at `out`) += sum over rows [begin, end), a few, of V vectors of columns from `column`
// on.
template <class real, int K, int V, class Body>
HOTLOOP_INLINE void sum_strip(int64 begin, int64 end, int64 column, int64 n, real (*totals)[kColumnTotals],
                              int64 out, Body&& body) {
  using Lanes = Vec<real>;
  Lanes sums[2][V][K];  // even and odd rows of the run
  for (int u = 0; u < 2; ++u) {
    for (int v = 0; v < V; ++v) {
      for (int k = 0; k < K; ++k) sums[u][v][k] = Lanes::zero();
    }
  }
  const auto add = [&](int u, int64 row) HOTLOOP_BODY {
    for (int v = 0; v < V; ++v) {
      Lanes terms[K];
      body(row, column + v * Lanes::width, n, terms);
      for (int k = 0; k < K; ++k) sums[u][v][k] = sums[u][v][k] + terms[k];
    }
  };
  int64 row = begin;
  for (; row + 2 <= end; row += 2) {
    add(0, row);
    add(1, row + 1);
  }
  if (row < end) add(0, row);
  for (int v = 0; v < V; ++v) {
    for (int k = 0; k < K; ++k) {
      real* total = totals[k] + out + v * Lanes::width;
      (Lanes::load(total) + (sums[0][v][k] + sums[1][v][k])).store(total);
    }
  }
}

// For the columns [begin, end) of a matrix, strips of so many rows: sums[k] = sum over rows, in an order that
// depends on their number alone, of the k-th vector of body(row, column, n, vectors[K]); then done(column, n,
// sums[K]). Two vectors, a cache line, at a time.
template <class real, int K, class Body, class Done>
HOTLOOP_INLINE void sum_columns(int64 rows, int64 begin, int64 end, Body&& body, Done&& done,
                                int64 strip = strip_rows(0)) {
  constexpr int64 width = Vec<real>::width;
  for (int64 first = begin; first < end; first += kMaxColumns) {
    const int64 count = end - first < kMaxColumns ? end - first : kMaxColumns;
    const auto clear = [count](real(&sums)[K][kColumnTotals]) {
      for (int k = 0; k < K; ++k) {
        for (int64 c = 0; c < count; c += width) Vec<real>::zero().store(sums[k] + c);
      }
    };
    real totals[K][kColumnTotals], parts[K][kColumnTotals];
    clear(totals);
    for (int64 run = 0; run < rows; run += kColumnRun) {
      const int64 run_end = rows - run < kColumnRun ? rows : run + kColumnRun;
      clear(parts);
      for (int64 row = run; row < run_end; row += strip) {
        const int64 stop = run_end - row < strip ? run_end : row + strip;
        int64 c = 0;
        for (; c + 2 * width <= count; c += 2 * width) {
          sum_strip<real, K, 2>(row, stop, first + c, width, parts, c, body);
        }
        for (; c + width <= count; c += width) {
          sum_strip<real, K, 1>(row, stop, first + c, width, parts, c, body);
        }
        if (c < count) sum_strip<real, K, 1>(row, stop, first + c, count - c, parts, c, body);
      }
      for_lanes<real>(0, count, [&](int64 c, int64 n) HOTLOOP_BODY {
        for (int k = 0; k < K; ++k) store(load(totals[k] + c, n) + load(parts[k] + c, n), totals[k] + c, n);
      });
    }
    for_lanes<real>(0, count, [&](int64 c, int64 n) HOTLOOP_BODY {
      Vec<real> sums[K];
      for (int k = 0; k < K; ++k) sums[k] = load(totals[k] + c, n);
      done(first + c, n, sums);
    });
  }
}

// 8192 floats are 32 KB: a chunk's matrix and its result fit an L2 cache beside the other operands.
constexpr int64 kMatrixChunk = 8192;

// Rows of one chunk of a row-wise kernel, at least one.
constexpr int64 rows_per_chunk(int64 cols) {
  return cols >= kMatrixChunk ? 1 : kMatrixChunk / (cols > 0 ? cols : 1);
}

// Columns of one chunk of a column-wise kernel, whole cache lines: enough for the chunk's size, and for
// many rows a quarter of the columns, so that there are chunks to share but rows are read in long pieces.
constexpr int64 columns_per_chunk(int64 rows, int64 cols) {
  const int64 by_size = rows_per_chunk(rows);
  const int64 by_share = cols / 4 < 256 ? cols / 4 : 256;
  const int64 columns = by_size > by_share ? by_size : by_share;
  return ceil_div(columns > 0 ? columns : 1, kPanel) * kPanel;
}

struct Range {
  int64 begin, end;
};

// The part of [0, count) that belongs to a chunk.
constexpr Range chunk_range(int64 chunk, int64 per_chunk, int64 count) {
  const int64 begin = chunk * per_chunk;
  return {begin, begin + per_chunk < count ? begin + per_chunk : count};
}

}  // namespace hotloop::HOTLOOP_ISA
