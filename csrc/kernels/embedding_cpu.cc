// SPDX-License-Identifier: Apache-2.0
// Embedding: rows of a table gathered by id, and their gradients added back. Ids were checked at the
// border; one that is out of range all the same reads as NaN and adds nothing, and touches no memory.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// y (n, dim) = weight (vocab, dim)[ids (n)]

template <class real>
int64 embedding_fwd_chunks(const EmbeddingFwdArgs<real>& a) {
  return ceil_div(a.n, rows_per_chunk(a.dim));
}

template <class real>
void embedding_fwd_run(const EmbeddingFwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, rows_per_chunk(a.dim), a.n);
  for (int64 row = rows.begin; row < rows.end; ++row) {
    const int64 id = a.ids[row];
    real* y = a.y + row * a.dim;
    if (id < 0 || id >= a.vocab) {
      const Vec<real> nan(static_cast<real>(__builtin_nan("")));
      for_lanes<real>(0, a.dim, [&](int64 c, int64 n) HOTLOOP_BODY { store(nan, y + c, n); });
      continue;
    }
    const real* source = a.weight + id * a.dim;
    for_lanes<real>(0, a.dim, [&](int64 c, int64 n) HOTLOOP_BODY { store(load(source + c, n), y + c, n); });
  }
}

// dweight (vocab, dim) = sum of dy (n, dim) over equal ids, in the order of n

// A chunk owns rows of the table and looks at every id. With at least 8 elements of the table per id the
// search costs no more than zeroing the rows.
template <class real>
HOTLOOP_INLINE int64 table_rows_per_chunk(const EmbeddingBwdArgs<real>& a) {
  const int64 elements = 8 * a.n > kMatrixChunk ? 8 * a.n : kMatrixChunk;
  return ceil_div(elements, a.dim > 0 ? a.dim : 1);
}

template <class real>
int64 embedding_bwd_chunks(const EmbeddingBwdArgs<real>& a) {
  return ceil_div(a.vocab, table_rows_per_chunk(a));
}

template <class real>
void embedding_bwd_run(const EmbeddingBwdArgs<real>& a, const StepContext&, int64 chunk) {
  const Range rows = chunk_range(chunk, table_rows_per_chunk(a), a.vocab);
  for_lanes<real>(rows.begin * a.dim, rows.end * a.dim,
                  [&](int64 i, int64 n) HOTLOOP_BODY { store(Vec<real>::zero(), a.dweight + i, n); });
  for (int64 i = 0; i < a.n; ++i) {
    const int64 id = a.ids[i];
    if (id < rows.begin || id >= rows.end) continue;
    const real* dy = a.dy + i * a.dim;
    real* dweight = a.dweight + id * a.dim;
    for_lanes<real>(0, a.dim, [&](int64 c, int64 n) HOTLOOP_BODY {
      store(load(dweight + c, n) + load(dy + c, n), dweight + c, n);
    });
  }
}

HOTLOOP_INSTANTIATE(embedding_fwd, EmbeddingFwdArgs)
HOTLOOP_INSTANTIATE(embedding_bwd, EmbeddingBwdArgs)

}  // namespace hotloop::HOTLOOP_ISA
