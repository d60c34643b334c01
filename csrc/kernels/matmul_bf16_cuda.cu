// SPDX-License-Identifier: Apache-2.0
// The launches of large products in bf16: a copy of each operand, then the product of the copies. When that
// is worth it is said in matmul_mma_choice_cuda.h.
#include "kernels/matmul_bf16_cuda.h"

#include "kernels/matmul_mma_choice_cuda.h"
#include "kernels/matmul_mma_cuda.h"

namespace hotloop::cuda {
namespace {

void convert(float* out, float* parts, const MatrixView& x, int64 k, int64 depth, const Launch& l) {
  const int64 tiles = depth / kConvertTile;
  launch(stream_of(l), to_bf16, static_cast<unsigned>(ceil_div(x.rows, kConvertTile) * tiles), kThreads, 0,
         out, parts, x, k, depth, static_cast<unsigned>(tiles));
}

}  // namespace

std::size_t matmul_bf16_workspace(const MatmulArgs<float>& a) { return Bf16Copies(a, nullptr).bytes; }

void matmul_bf16(const MatmulArgs<float>& a, const Launch& l) {
  using S = Mma128x256;
  const Bf16Copies copies(a, l.workspace);
  const auto [left, right] = operands_of(a, {});
  convert(copies.a, copies.parts > 0 ? copies.row_parts : nullptr, left, a.k, copies.depth, l);
  convert(copies.b, nullptr, right, a.k, copies.depth, l);
  const auto rows = static_cast<unsigned>(ceil_div(a.m, S::BM));
  const auto columns = static_cast<unsigned>(ceil_div(a.n, S::BN));
  const MmaArgs product{left,  right, epilogue_of(a, {}), {}, l.step, a.row_sum, a.k, rows, columns, false,
                        false, {}};
  const Bf16Args args{product, copies.a, copies.b, copies.row_parts, copies.depth, copies.parts};
  launch(stream_of(l), matmul_bf16_tiles<S>, rows * columns, S::kThreads, S::kShared, args);
}

}  // namespace hotloop::cuda
