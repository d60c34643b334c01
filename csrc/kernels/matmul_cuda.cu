// SPDX-License-Identifier: Apache-2.0
// Products of matrices: what is not for the matrix units goes to the multiply-add units, by tiles or, with
// few columns or rows, by rows; the packing of panels.
#include "kernels/launchers.h"
#include "kernels/matmul_choice_cuda.h"
#include "kernels/matmul_mma_cuda.h"
#include "kernels/matmul_thin_cuda.h"
#include "kernels/matmul_tile_cuda.h"

namespace hotloop::cuda {
namespace {

// tiles of a matrix, pieces of k, matrices
Dim3 grid_of(const MatmulWay& way, const MatmulBatch& batch) {
  const unsigned matrices = matrices_of(batch);
  return Dim3(static_cast<unsigned>(way.tiles) / matrices, static_cast<unsigned>(way.pieces), matrices);
}

template <class T>
void launch_tiles(const MatmulArgs<float>& a, const MatmulBatch& batch, const Launch& l,
                  const MatmulWay& way) {
  const auto columns = static_cast<unsigned>(ceil_div(a.n == 0 ? 1 : a.n, T::BN));
  const auto [left, right] = operands_of(a, batch);
  const TileArgs args{left,
                      right,
                      epilogue_of(a, batch),
                      split_of(l.workspace, way.pieces, way.depth),
                      l.step,
                      a.row_sum,
                      a.k,
                      columns,
                      batch};
  launch(stream_of(l), matmul_tiles<T>, grid_of(way, batch), T::kThreads, 0, args);
}

void launch_thin(const MatmulArgs<float>& a, const MatmulBatch& batch, const Launch& l,
                 const MatmulWay& way) {
  const auto [left, right] = operands_of(a, batch);
  const bool thin_b = way.kernel == MatmulKernel::kThinB;
  const MatrixView &wide = thin_b ? left : right, &thin = thin_b ? right : left;
  const ThinArgs args{wide,
                      thin,
                      epilogue_of(a, batch),
                      split_of(l.workspace, way.pieces, way.depth),
                      l.step,
                      a.row_sum,
                      a.k,
                      thin_b,
                      batch};
  if (wide.along_depth) {
    launch(stream_of(l), matmul_thin<true>, grid_of(way, batch), ThinShape<true>::kThreads, 0, args);
  } else {
    launch(stream_of(l), matmul_thin<false>, grid_of(way, batch), ThinShape<false>::kThreads, 0, args);
  }
}

// What one launch takes: the grid's limit. Nobody cuts the k of so many.
constexpr int64 kMostMatrices = 65535;

void launch_halves(MatmulArgs<float> a, const MatmulBatch& batch, const Launch& l) {
  const int d = batch.outer > 1 ? 0 : 1;
  const auto size = d == 0 ? &MatmulBatch::outer : &MatmulBatch::inner;
  MatmulBatch half = batch;
  half.*size = batch.*size / 2;
  matmul_batch_launch(&a, half, l);
  a.a += half.*size * batch.a[d];
  a.b += half.*size * batch.b[d];
  a.out += half.*size * batch.out[d];
  half.*size = batch.*size - half.*size;
  matmul_batch_launch(&a, half, l);
}

// out (ceil(n/16), k, 16) = x (k, n), a thread for each element
HL_KERNEL pack(float* out, const float* x, int64 k, int64 n, int64 stride_k, int64 stride_n) {
  const int64 all = ceil_div(n, kPanel) * k * kPanel;
  for (int64 i = int64{blockIdx.x} * blockDim.x + threadIdx.x; i < all; i += int64{gridDim.x} * blockDim.x) {
    const int64 row = i / kPanel, p = row % k, j = row / k * kPanel + i % kPanel;
    out[i] = j < n ? x[p * stride_k + j * stride_n] : 0.0f;
  }
}

}  // namespace

void matmul_batch_launch(const void* args, const MatmulBatch& batch, const Launch& l) {
  const auto& a = *static_cast<const MatmulArgs<float>*>(args);
  const int64 matrices = batch.outer * batch.inner;
  if (matrices == 0 || a.m == 0 || (a.n == 0 && a.row_sum == nullptr)) return;
  if (matrices > kMostMatrices) return launch_halves(a, batch, l);
  if (matmul_mma_takes(a, matrices, l)) return matmul_mma(a, batch, l);
  const MatmulWay way = way_of(a, *l.traits, matrices);
  switch (way.kernel) {
    case MatmulKernel::k128x128:
      return launch_tiles<Tile128x128>(a, batch, l, way);
    case MatmulKernel::k64x64:
      return launch_tiles<Tile64x64>(a, batch, l, way);
    case MatmulKernel::k32x32:
      return launch_tiles<Tile32x32>(a, batch, l, way);
    case MatmulKernel::k128x16:
      return launch_tiles<Tile128x16>(a, batch, l, way);
    case MatmulKernel::k16x128:
      return launch_tiles<Tile16x128>(a, batch, l, way);
    case MatmulKernel::kThinA:
    case MatmulKernel::kThinB:
      return launch_thin(a, batch, l, way);
  }
}

std::size_t matmul_batch_workspace(const void* args, const MatmulBatch& batch, const DeviceTraits& traits,
                                   Precision precision) {
  const auto& a = *static_cast<const MatmulArgs<float>*>(args);
  const int64 matrices = batch.outer * batch.inner;
  if (matrices > kMostMatrices) return 0;
  const std::size_t mma = matmul_mma_workspace(a, matrices, traits, precision),
                    plain = way_of(a, traits, matrices).workspace();
  return mma > plain ? mma : plain;
}

std::size_t workspace_bytes(const MatmulArgs<float>& a, const DeviceTraits& traits, Precision precision) {
  return matmul_batch_workspace(&a, {}, traits, precision);
}

void matmul_launch(const MatmulArgs<float>& a, const Launch& l) { matmul_batch_launch(&a, {}, l); }

void pack_panels_launch(const PackPanelsArgs<float>& a, const Launch& l) {
  const int64 all = ceil_div(a.n, kPanel) * a.k * kPanel;
  if (all == 0) return;
  launch(stream_of(l), pack, grid_for(all, l), kThreads, 0, a.out, a.x, a.k, a.n, a.stride_k, a.stride_n);
}

}  // namespace hotloop::cuda
