// SPDX-License-Identifier: Apache-2.0
// Products over parts of a long k, one after another. Plans for a device have none: there a product cuts its
// own k (matmul_split_cuda.h).
#include "kernels/matmul_parts.h"

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

std::size_t workspace_bytes(const MatmulPartsArgs<float>& a, const DeviceTraits& traits,
                            Precision precision) {
  return a.parts == 0 ? 0 : workspace_bytes(product_of_part(a, 0), traits, precision);
}

void matmul_parts_launch(const MatmulPartsArgs<float>& a, const Launch& l) {
  for (int64 part = 0; part < a.parts; ++part) matmul_launch(product_of_part(a, part), l);
}

}  // namespace hotloop::cuda
