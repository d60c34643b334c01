// SPDX-License-Identifier: Apache-2.0
// Strided copy: transposes, slices, concatenation, broadcasting. Chunks are runs of elements in the order
// of the output's dimensions.
#include "kernels/strided.h"

namespace hotloop::HOTLOOP_ISA {

template <class real>
int64 copy_chunks(const CopyArgs<real>& args) {
  return ceil_div(args.d0 * args.d1 * args.d2 * args.d3, kElementwiseChunk);
}

template <class real>
void copy_run(const CopyArgs<real>& args, const StepContext&, int64 chunk) {
  Strided<2> loop{{args.d0, args.d1, args.d2, args.d3},
                  {{args.o0, args.o1, args.o2, args.o3}, {args.x0, args.x1, args.x2, args.x3}}};
  loop.merge();
  const int64 stride_out = loop.stride[0][kMaxDims - 1];
  const int64 stride_x = loop.stride[1][kMaxDims - 1];
  const Range range = chunk_range(chunk, kElementwiseChunk, loop.elements());
  loop.for_segments(range, [&](const int64(&offset)[2], int64 count) {
    real* out = args.out + offset[0];
    const real* x = args.x + offset[1];
    if (stride_out != 1) {
      for (int64 i = 0; i < count; ++i) out[i * stride_out] = x[i * stride_x];
    } else if (stride_x == 1) {
      for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY { store(load(x + i, n), out + i, n); });
    } else {
      for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
        store(gather(x + i * stride_x, stride_x, n), out + i, n);
      });
    }
  });
}

HOTLOOP_INSTANTIATE(copy, CopyArgs)

}  // namespace hotloop::HOTLOOP_ISA
