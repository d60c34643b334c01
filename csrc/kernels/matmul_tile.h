// SPDX-License-Identifier: Apache-2.0
// The register tile of the matrix product: `rows` by `panels` x 16 outputs stay in registers while k runs.
// Per k it loads a row of B and broadcasts one element of A per row. Every output is one chain of fma in the
// order of k, whatever the tile's form, so a row has the same bits in any batch.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// 16 bytes as the compiler's own vector type: two or four lanes on any machine with 128-bit SIMD. The tile of
// the one-lane unit is made of them, because the loop over 16 columns is not vectorised well by itself.
template <class real>
struct Wide {
  static constexpr int64 width = 16 / static_cast<int64>(sizeof(real));
  typedef real Raw __attribute__((vector_size(16)));
  Raw v;

  Wide() = default;
  HOTLOOP_INLINE explicit Wide(real x) {
    for (int64 i = 0; i < width; ++i) v[i] = x;
  }
  static HOTLOOP_INLINE Wide zero() { return Wide(real(0)); }
  static HOTLOOP_INLINE Wide load(const real* p) {
    Wide x;
    __builtin_memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static HOTLOOP_INLINE Wide load_n(const real* p, int64 n) {
    real lanes[width] = {};
    for (int64 i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  HOTLOOP_INLINE void store(real* p) const { __builtin_memcpy(p, &v, sizeof v); }
  HOTLOOP_INLINE void store_n(real* p, int64 n) const {
    real lanes[width];
    store(lanes);
    for (int64 i = 0; i < n; ++i) p[i] = lanes[i];
  }
};
template <class real>
HOTLOOP_INLINE Wide<real> operator+(Wide<real> a, Wide<real> b) {
  a.v += b.v;
  return a;
}
template <class real>
HOTLOOP_INLINE Wide<real> fma(Wide<real> a, Wide<real> b, Wide<real> c) {
  Wide<real> x;
  x.v = a.v * b.v + c.v;
  return x;
}

// V: a vector of B and of sums. Scalar: an element of A, made from a real; fma(Scalar, V, V) uses it.
template <class real, bool many_lanes = (Vec<real>::width > 1)>
struct TileLanes {
  using V = Vec<real>;
#ifdef HOTLOOP_NEON
  using Scalar = OneLane;
#else
  using Scalar = V;
#endif
};
template <class real>
struct TileLanes<real, false> {
  using V = Wide<real>;
  using Scalar = V;
};

// Where a vector is a whole panel its tail is masked for nothing, so that B needs no copy at its last column.
template <class real>
constexpr bool kMaskedTail = Vec<real>::width == kPanel;

// AVX-512: 14 x 32 floats are 28 of the 32 registers. AVX2: 6 x 16 floats are 12 of the 16. Either leaves
// what B and A need, and is more chains than the 8 to 10 that two FMA units of latency 4 to 5 wait for.
// 2 x 16 floats are 8 of the 16 SSE registers. NEON: 6 x 16 floats are 24 of 32, beside 4 of B and those of
// A. The usual 8 x 12 has as many sums, but loads 8 + 3 registers for them and not 6 + 4, and a panel of 16
// columns is not made of 12; 8 x 16 leaves no register for B.
template <class real>
constexpr int kTileRows = kMaskedTail<real>      ? 14
                          : Vec<real>::width > 1 ? 6
                                                 : 2;
template <class real>
constexpr int kTilePanels = kMaskedTail<real> ? 2 : 1;
// Low tiles are twice as wide, as far as registers go: a product of one row has more chains.
template <class real>
constexpr int kWideRows = kMaskedTail<real>      ? 6
                          : Vec<real>::width > 1 ? 2
                                                 : 1;
template <class real>
constexpr int kMostPanels = Vec<real>::width > 1 ? 2 * kTilePanels<real> : 1;

// One tile's work on one run of k.
template <class real>
struct TileWork {
  const real* a;  // a_ip at a[i*a_stride + p], or at a[i + p*a_stride] if A lies by columns
  int64 a_stride;
  const real* b;           // b_pj at b[p*b_stride + j/16*b_step + j%16]; readable to n, or to the panel's
  int64 b_stride, b_step;  // end without masks
  int64 k;
  real* out;  // n columns are written, at least one of the last panel
  int64 out_stride, n;
  const real* bias;  // (n), or null
  bool add;          // out is added to, not overwritten
  bool resume;       // the sums go on from out, as if the run of k had not been cut
  // What to fetch while k runs: rows of B that a later tile reads. Any address will do, nothing is read
  // there.
  const real* ahead;
  int64 pace;  // steps of k between two prefetches, a row of B ahead and one row of outputs each
};

// Prefetches are spread over the whole of k, because a burst would fill the queue of misses that the operands
// come through as well. From so many tiles on, each fetches its share of the next panels at this pace.
constexpr int64 kSlowestPace = 8;

// body(0), ... body(count - 1), written out: an array stays in registers only if no index is left.
template <int count, class Body>
HOTLOOP_INLINE void unrolled(Body&& body) {
  if constexpr (count > 0) {
    unrolled<count - 1>(body);
    body(count - 1);
  }
}

template <class real, int rows, int panels, bool by_columns>
struct Tile {
  using V = typename TileLanes<real>::V;
  using Scalar = typename TileLanes<real>::Scalar;
  static constexpr int kVectors = panels * static_cast<int>(kPanel / V::width);
  static constexpr int kBases = by_columns ? 1 : (rows + 2) / 3;

  V sums[rows][kVectors];
  const TileWork<real>& work;
  const real* a[kBases];  // by rows: of every third row, the others being one and two strides on
  const real* b;

  HOTLOOP_INLINE explicit Tile(const TileWork<real>& given) : work(given), b(given.b) {
    unrolled<rows * kVectors>([&](int i) HOTLOOP_BODY { sums[i / kVectors][i % kVectors] = V::zero(); });
    unrolled<kBases>([&](int i) HOTLOOP_BODY { a[i] = work.a + 3 * i * work.a_stride; });
    if (kMaskedTail<real> && work.resume) load_sums();  // other runs are too short to be cut
  }

  HOTLOOP_INLINE void load_sums() {
    unrolled<kVectors>([&](int j) HOTLOOP_BODY {
      const int64 n = columns_of(j);
      unrolled<rows>([&](int i) HOTLOOP_BODY {
        const real* at = work.out + i * work.out_stride + j * V::width;
        sums[i][j] = n == V::width ? V::load(at) : V::load_n(at, n);
      });
    });
  }

  // Columns of the vector j that are there.
  HOTLOOP_INLINE int64 columns_of(int j) const {
    const int64 n = work.n - j * V::width;
    return n < 0 ? 0 : n < V::width ? n : V::width;
  }

  // sums_ij += a_ip b_pj, and on to the next p
  HOTLOOP_INLINE void add_product(int64 last) {
    V row[kVectors];
    unrolled<kVectors>([&](int j) HOTLOOP_BODY {
      const int column = j * static_cast<int>(V::width);
      const real* at = b + column / kPanel * work.b_step + column % kPanel;
      row[j] = kMaskedTail<real> && j == kVectors - 1 ? V::load_n(at, last) : V::load(at);
    });
    unrolled<rows>([&](int i) HOTLOOP_BODY {
      const Scalar scalar{by_columns ? a[0][i] : a[i / 3][i % 3 * work.a_stride]};
      unrolled<kVectors>([&](int j) HOTLOOP_BODY { sums[i][j] = fma(scalar, row[j], sums[i][j]); });
    });
    b += work.b_stride;
    unrolled<kBases>([&](int i) HOTLOOP_BODY { a[i] += by_columns ? work.a_stride : 1; });
  }

  HOTLOOP_INLINE void add_products(int64 count) {
    const int64 last = work.n - (panels - 1) * kPanel;  // columns of the last panel
#pragma GCC unroll 1
    for (int64 p = count; p > 0; --p) {
      // Opaque, or the compiler makes one pointer of each row, more than there are registers.
      unrolled<kBases>([&](int i) HOTLOOP_BODY { asm("" : "+r"(a[i])); });
      add_product(last);
    }
  }

  HOTLOOP_INLINE void multiply() {
    const real* ahead = work.ahead;
    const real* out = work.out;
    int64 p = work.k;
    for (; p >= work.pace; p -= work.pace) {
      add_products(work.pace);
      unrolled<panels>([&](int j) HOTLOOP_BODY {
        __builtin_prefetch(ahead + j * work.b_step, 0, 2);
        __builtin_prefetch(out + j * kPanel, 1);
      });
      ahead += work.b_stride;
      out += work.out_stride;
    }
    add_products(p);
  }

  // out = (add ? out : 0) + sums + bias, for the vector j of columns; full or of n columns.
  template <bool full>
  HOTLOOP_INLINE void finish(int j, int64 n) {
    real* out = work.out + j * V::width;
    if (work.add) {
      unrolled<rows>([&](int i) HOTLOOP_BODY {
        const real* at = out + i * work.out_stride;
        sums[i][j] = (full ? V::load(at) : V::load_n(at, n)) + sums[i][j];
      });
    }
    if (work.bias != nullptr) {
      const real* at = work.bias + j * V::width;
      const V bias = full ? V::load(at) : V::load_n(at, n);
      unrolled<rows>([&](int i) HOTLOOP_BODY { sums[i][j] = sums[i][j] + bias; });
    }
    unrolled<rows>([&](int i) HOTLOOP_BODY {
      real* at = out + i * work.out_stride;
      if (full) {
        sums[i][j].store(at);
      } else {
        sums[i][j].store_n(at, n);
      }
    });
  }

  HOTLOOP_INLINE void store() {
    unrolled<kVectors>([&](int j) HOTLOOP_BODY {
      const int64 n = work.n - j * V::width;
      if (kMaskedTail<real> ? j < kVectors - 1 : n >= V::width) {
        finish<true>(j, V::width);
      } else if (n > 0) {
        finish<false>(j, n);
      }
    });
  }
};

template <class real, int rows, int panels, bool by_columns>
__attribute__((noinline)) void run_tile(const TileWork<real>& work) {
  Tile<real, rows, panels, by_columns> tile(work);
  tile.multiply();
  tile.store();
}

template <class real>
using TileFunction = void (*)(const TileWork<real>&);

// The tile of `rows` in 1 ... most.
template <class real, int panels, bool by_columns, int most>
HOTLOOP_INLINE TileFunction<real> tile_of_rows(int64 rows) {
  if constexpr (most > 1) {
    if (rows < most) return tile_of_rows<real, panels, by_columns, most - 1>(rows);
  }
  return &run_tile<real, most, panels, by_columns>;
}

// panels: 1, kTilePanels, or, with up to kWideRows, kMostPanels
template <class real, bool by_columns>
HOTLOOP_INLINE TileFunction<real> tile_of(int64 rows, int64 panels) {
  if (panels > kTilePanels<real>) {
    return tile_of_rows<real, kMostPanels<real>, by_columns, kWideRows<real>>(rows);
  }
  if (panels == 1) return tile_of_rows<real, 1, by_columns, kTileRows<real>>(rows);
  return tile_of_rows<real, kTilePanels<real>, by_columns, kTileRows<real>>(rows);
}

}  // namespace hotloop::HOTLOOP_ISA
