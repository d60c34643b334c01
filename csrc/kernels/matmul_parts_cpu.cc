// SPDX-License-Identifier: Apache-2.0
// Products over parts of a long k: the chunks of every part's product, part by part, are one pool of work.
#include "kernels/matmul_parts.h"

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

// Chunks of a part: those of a whole one. The last part that has rows may have fewer, and then the rest of
// its numbers are no work.
template <class real>
int64 chunks_of_part(const MatmulPartsArgs<real>& a) {
  MatmulArgs<real> whole = product_of_part(a, 0);
  whole.k = a.depth;
  return matmul_chunks(whole);
}

}  // namespace

template <class real>
int64 matmul_parts_chunks(const MatmulPartsArgs<real>& a) {
  return a.parts * chunks_of_part(a);
}

template <class real>
void matmul_parts_run(const MatmulPartsArgs<real>& a, const StepContext& ctx, int64 chunk) {
  const int64 each = chunks_of_part(a);
  const MatmulArgs<real> product = product_of_part(a, chunk / each);
  if (chunk % each < matmul_chunks(product)) matmul_run(product, ctx, chunk % each);
}

// One thread cuts each part as little as it does a product.
template <class real>
void all_chunks(const MatmulPartsArgs<real>& a, const StepContext& ctx) {
  for (int64 part = 0; part < a.parts; ++part) all_chunks(product_of_part(a, part), ctx);
}

HOTLOOP_INSTANTIATE(matmul_parts, MatmulPartsArgs)
template void all_chunks<float>(const MatmulPartsArgs<float>&, const StepContext&);
#ifdef HOTLOOP_ISA_HAS_DOUBLE
template void all_chunks<double>(const MatmulPartsArgs<double>&, const StepContext&);
#endif

}  // namespace hotloop::HOTLOOP_ISA
