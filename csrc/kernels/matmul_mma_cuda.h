// SPDX-License-Identifier: Apache-2.0
// Products on the matrix units of sm_80 and up: whether they take a product, what it needs beside its
// operands, and the launch. What they do not take goes to the multiply-add units (matmul_cuda.cu).
#pragma once

#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

bool matmul_mma_takes(const MatmulArgs<float>&, int64 matrices, const Launch&);
// Bytes of Launch::workspace past its counters; 0 for a product that they do not take.
std::size_t matmul_mma_workspace(const MatmulArgs<float>&, int64 matrices, const DeviceTraits&, Precision);
// Large products in bf16, from copies of both operands that take so many bytes of the workspace.
std::size_t matmul_bf16_workspace(const MatmulArgs<float>&);
void matmul_bf16(const MatmulArgs<float>&, const Launch&);
void matmul_mma(const MatmulArgs<float>&, const MatmulBatch&, const Launch&);

}  // namespace hotloop::cuda
