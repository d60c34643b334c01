// SPDX-License-Identifier: Apache-2.0
// Products on the matrix units: operands as they are in memory, in float32, multiplied in bf16, tf32, or in
// three products of tf32 that are as accurate as float32; sums in float32.
#include "kernels/matmul_mma_cuda.h"

#include "kernels/matmul_mma_choice_cuda.h"
#include "kernels/matmul_mma_terms_cuda.h"

namespace hotloop::cuda {
namespace {

// Whether a copy of 16 bytes holds four neighbours everywhere.
bool is_wide(const MatrixView& view, int64 k) {
  return view.aligned && (view.along_depth ? k : view.rows) % 4 == 0;
}

template <class S, class Terms>
void launch_mma(const MatmulArgs<float>& a, const MatmulBatch& batch, const Launch& l, const MmaWay& way) {
  const auto rows = static_cast<unsigned>(ceil_div(a.m, S::BM));
  const auto columns = static_cast<unsigned>(ceil_div(a.n, S::BN));
  const auto [left, right] = operands_of(a, batch);
  const MmaArgs args{left,
                     right,
                     epilogue_of(a, batch),
                     split_of(l.workspace, way.way.pieces, way.way.depth),
                     l.step,
                     a.row_sum,
                     a.k,
                     rows,
                     columns,
                     is_wide(left, a.k),
                     is_wide(right, a.k),
                     batch};
  const Dim3 grid(rows * columns, static_cast<unsigned>(way.way.pieces), matrices_of(batch));
  launch(stream_of(l), matmul_mma_tiles<S, Terms>, grid, S::kThreads, S::kShared, args);
}

template <class Terms>
void launch_low(const MatmulArgs<float>& a, const MatmulBatch& batch, const Launch& l, const MmaWay& way) {
  if (way.kernel == MmaKernel::k128x256) return launch_mma<Mma128x256, Terms>(a, batch, l, way);
  if (way.kernel == MmaKernel::k128x128) return launch_mma<Mma128x128, Terms>(a, batch, l, way);
  launch_mma<Mma64x64, Terms>(a, batch, l, way);
}

}  // namespace

bool matmul_mma_takes(const MatmulArgs<float>& a, int64 matrices, const Launch& l) {
  return mma_way_of(a, matrices, *l.traits, l.precision).takes;
}

std::size_t matmul_mma_workspace(const MatmulArgs<float>& a, int64 matrices, const DeviceTraits& traits,
                                 Precision precision) {
  const MmaWay way = mma_way_of(a, matrices, traits, precision);
  return way.way.workspace() + way.copies;
}

void matmul_mma(const MatmulArgs<float>& a, const MatmulBatch& batch, const Launch& l) {
  const MmaWay way = mma_way_of(a, matrices_of(batch), *l.traits, l.precision);
  switch (l.precision) {
    case Precision::kBf16:
      if (way.kernel == MmaKernel::kCopies) return matmul_bf16(a, l);
      return launch_low<MmaBf16>(a, batch, l, way);
    case Precision::kTf32:
      return launch_low<MmaTf32>(a, batch, l, way);
    case Precision::kFloat32:
      if (way.kernel == MmaKernel::k128x128)
        return launch_mma<Mma128x128, MmaFloat32<false>>(a, batch, l, way);
      return launch_mma<Mma64x64, MmaFloat32<false>>(a, batch, l, way);
  }
}

}  // namespace hotloop::cuda
