// SPDX-License-Identifier: Apache-2.0
// A part of matmul_parts as a product of its own, for every backend alike.
#pragma once

#include "kernels/args.h"

namespace hotloop {

// out[part] (m, n) = A^T B over the rows of that part
template <class real>
constexpr MatmulArgs<real> product_of_part(const MatmulPartsArgs<real>& a, int64 part) {
  const int64 begin = part * a.depth < a.k ? part * a.depth : a.k;
  MatmulArgs<real> product{};
  product.out = a.out + part * a.m * a.n;
  product.row_sum = a.row_sum == nullptr ? nullptr : a.row_sum + part * a.m;
  product.a = a.a + begin * a.m;
  product.b = a.b + begin * a.n;
  product.m = a.m;
  product.n = a.n;
  product.k = a.k - begin < a.depth ? a.k - begin : a.depth;
  product.a_stride_m = 1;
  product.a_stride_k = a.m;
  product.b_stride_k = a.n;
  product.b_stride_n = 1;
  product.out_stride = a.n;
  product.activation = -1;
  product.dropout = -1;
  product.alpha = 1.0;
  return product;
}

}  // namespace hotloop
