// SPDX-License-Identifier: Apache-2.0
// Products of matrices: what is not for the matrix units goes to the multiply-add units, by tiles or, with
// few columns or rows, by rows; the packing of panels.
#include "kernels/matmul_choice_cuda.h"
#include "kernels/matmul_mma_cuda.h"
#include "kernels/matmul_thin_cuda.h"
#include "kernels/matmul_tile_cuda.h"

namespace hotloop::cuda {
namespace {

template <class T>
void launch_tiles(const MatmulArgs<float>& a, const Launch& l, const MatmulWay& way) {
  const auto columns = static_cast<unsigned>(ceil_div(a.n == 0 ? 1 : a.n, T::BN));
  const TileArgs args{
      view_of_a(a), view_of_b(a), epilogue_of(a), split_of(l.workspace, way.pieces, way.depth), l.step,
      a.row_sum,    a.k,          columns};
  launch(stream_of(l), matmul_tiles<T>,
         Dim3(static_cast<unsigned>(way.tiles), static_cast<unsigned>(way.pieces)), T::kThreads, 0, args);
}

void launch_thin(const MatmulArgs<float>& a, const Launch& l, const MatmulWay& way) {
  const MatrixView left = view_of_a(a), right = view_of_b(a);
  const bool thin_b = way.kernel == MatmulKernel::kThinB;
  const MatrixView &wide = thin_b ? left : right, &thin = thin_b ? right : left;
  const ThinArgs args{wide,      thin, epilogue_of(a), split_of(l.workspace, way.pieces, way.depth), l.step,
                      a.row_sum, a.k,  thin_b};
  const Dim3 grid(static_cast<unsigned>(way.tiles), static_cast<unsigned>(way.pieces));
  if (wide.along_depth) {
    launch(stream_of(l), matmul_thin<true>, grid, ThinShape<true>::kThreads, 0, args);
  } else {
    launch(stream_of(l), matmul_thin<false>, grid, ThinShape<false>::kThreads, 0, args);
  }
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

std::size_t workspace_bytes(const MatmulArgs<float>& a, const DeviceTraits& traits, Precision precision) {
  const std::size_t mma = matmul_mma_workspace(a, traits, precision), plain = way_of(a, traits).workspace();
  return mma > plain ? mma : plain;
}

void matmul_launch(const MatmulArgs<float>& a, const Launch& l) {
  if (a.m == 0 || (a.n == 0 && a.row_sum == nullptr)) return;
  if (matmul_mma_takes(a, l)) return matmul_mma(a, l);
  const MatmulWay way = way_of(a, *l.traits);
  switch (way.kernel) {
    case MatmulKernel::k128x128:
      return launch_tiles<Tile128x128>(a, l, way);
    case MatmulKernel::k64x64:
      return launch_tiles<Tile64x64>(a, l, way);
    case MatmulKernel::k32x32:
      return launch_tiles<Tile32x32>(a, l, way);
    case MatmulKernel::k128x16:
      return launch_tiles<Tile128x16>(a, l, way);
    case MatmulKernel::k16x128:
      return launch_tiles<Tile16x128>(a, l, way);
    case MatmulKernel::kThinA:
    case MatmulKernel::kThinB:
      return launch_thin(a, l, way);
  }
}

void pack_panels_launch(const PackPanelsArgs<float>& a, const Launch& l) {
  const int64 all = ceil_div(a.n, kPanel) * a.k * kPanel;
  if (all == 0) return;
  launch(stream_of(l), pack, grid_for(all, l), kThreads, 0, a.out, a.x, a.k, a.n, a.stride_k, a.stride_n);
}

}  // namespace hotloop::cuda
