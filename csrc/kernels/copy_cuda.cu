// SPDX-License-Identifier: Apache-2.0
// Strided copy: transposes, slices, concatenation, broadcasting. Bound by memory, 8 bytes an element. The
// order of elements is free, so the output's smallest stride is walked innermost; where x has its own stride
// of 1 in another dimension, tiles go through shared memory, so that both sides move whole lines.
#include "kernels/kernel_cuda.h"
#include "kernels/strided_cuda.h"

namespace hotloop::cuda {
namespace {

using Shape = Strided<2>;  // out, x

HL_KERNEL copy(float* out, const float* x, Shape shape, int64 n, int64 n4) {
  for_quads(
      n, n4,
      [&](int64 i) {
        int64 at[2];
        shape.find(i, at);
        store4(out + at[0], load_four(x + at[1], shape.stride[1][kInner]));
      },
      [&](int64 i) {
        int64 at[2];
        shape.find(i, at);
        out[at[0]] = x[at[1]];
      });
}

constexpr int kTile = 32;  // a warp's lanes
constexpr int kTileRows = kThreads / kTile;

// Of dimensions 2 and 3, x is dense along 2 and out along 3. A block moves a tile of 32 x 32; the row of 33
// words keeps the lanes that read a column in different banks.
HL_KERNEL HL_BOUNDS(kThreads, 4) transpose(float* out, const float* x, Shape shape, int64 tiles) {
  HL_SHARED(float, tile, [kTile][kTile + 1]);
  const int lane = lane_id();
  const int64 down = ceil_div(shape.size[2], kTile), across = ceil_div(shape.size[3], kTile);
  for (int64 t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64 matrix = t / (down * across), place = t % (down * across);
    const int64 row = place / across * kTile, column = place % across * kTile;
    const int64 i = matrix / shape.size[1], j = matrix % shape.size[1];
    const float* from = x + i * shape.stride[1][0] + j * shape.stride[1][1];
    float* to = out + i * shape.stride[0][0] + j * shape.stride[0][1];
    HL_UNROLL
    for (int r = 0; r < kTile; r += kTileRows) {
      const int64 c = column + r + warp_id();
      if (c < shape.size[3] && row + lane < shape.size[2])
        tile[r + warp_id()][lane] = from[c * shape.stride[1][3] + row + lane];
    }
    sync();
    HL_UNROLL
    for (int r = 0; r < kTile; r += kTileRows) {
      const int64 down_at = row + r + warp_id();
      if (down_at < shape.size[2] && column + lane < shape.size[3])
        to[down_at * shape.stride[0][2] + column + lane] = tile[lane][r + warp_id()];
    }
    sync();
  }
}

// Whether the shape is one of transposes; then dimension 2 is x's dense one. A tile must be half full at
// least.
bool make_transpose(Shape& shape) {
  if (shape.stride[0][kInner] != 1 || shape.stride[1][kInner] == 1 || shape.size[kInner] < kTile / 2)
    return false;
  for (int d = 0; d < kInner; ++d) {
    if (shape.stride[1][d] != 1 || shape.size[d] < kTile / 2) continue;
    shape.exchange(d, 2);
    return true;
  }
  return false;
}

}  // namespace

void copy_launch(const CopyArgs<float>& a, const Launch& l) {
  Shape shape{{a.d0, a.d1, a.d2, a.d3}, {{a.o0, a.o1, a.o2, a.o3}, {a.x0, a.x1, a.x2, a.x3}}};
  const int64 n = shape.elements();
  if (n == 0) return;
  shape.merge();
  shape.sort_by(0);
  shape.merge();
  if (make_transpose(shape)) {
    const int64 tiles =
        shape.size[0] * shape.size[1] * ceil_div(shape.size[2], kTile) * ceil_div(shape.size[3], kTile);
    launch(stream_of(l), transpose, grid_for(tiles, l, 1), kThreads, 0, a.out, a.x, shape, tiles);
    return;
  }
  const int64 n4 = shape.stride[0][kInner] == 1 ? shape.groups_of_four({a.out, a.x}) : 0;
  launch(stream_of(l), copy, grid_for(n4 > 0 ? n4 : n, l), kThreads, 0, a.out, a.x, shape, n, n4);
}

}  // namespace hotloop::cuda
