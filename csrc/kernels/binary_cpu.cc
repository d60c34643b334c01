// SPDX-License-Identifier: Apache-2.0
// Arithmetic of two tensors with broadcasting: every line of binary.def. The output is dense, so chunks are
// runs of its elements.
#include "kernels/math.h"
#include "kernels/strided.h"
#include "kernels/write_lanes.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

template <class real>
Strided<3> strided(const BinaryArgs<real>& args) {
  Strided<3> loop{{args.d0, args.d1, args.d2, args.d3},
                  {{args.d1 * args.d2 * args.d3, args.d2 * args.d3, args.d3, 1},
                   {args.a0, args.a1, args.a2, args.a3},
                   {args.b0, args.b1, args.b2, args.b3}}};
  loop.merge();
  return loop;
}

template <class F, class real>
void binary(const BinaryArgs<real>& args, int64 chunk) {
  const Strided<3> loop = strided(args);
  const int64 stride_a = loop.stride[1][kMaxDims - 1];
  const int64 stride_b = loop.stride[2][kMaxDims - 1];
  const Range range = chunk_range(chunk, kElementwiseChunk, loop.elements());
  const bool streamed = streams<real>(loop.elements()) && args.out != args.a && args.out != args.b;
  loop.for_segments(range, [&](const int64(&offset)[3], int64 count) {
    real* out = args.out + offset[0];
    const real* a = args.a + offset[1];
    const real* b = args.b + offset[2];
    if (stride_a == 1 && stride_b == 1) {
      write_lanes<real>({0, count}, out, streamed, [&](int64 i, int64 n) HOTLOOP_BODY {
        return F::value(load(a + i, n), load(b + i, n));
      });
    } else {
      for_lanes<real>(0, count, [&](int64 i, int64 n) HOTLOOP_BODY {
        store(F::value(gather(a + i * stride_a, stride_a, n), gather(b + i * stride_b, stride_b, n)), out + i,
              n);
      });
    }
  });
  end_stream<real>(streamed);
}

}  // namespace

#define HOTLOOP_BINARY(name, Functor)                                              \
  template <class real>                                                            \
  int64 name##_chunks(const BinaryArgs<real>& args) {                              \
    return ceil_div(args.d0 * args.d1 * args.d2 * args.d3, kElementwiseChunk);     \
  }                                                                                \
  template <class real>                                                            \
  void name##_run(const BinaryArgs<real>& args, const StepContext&, int64 chunk) { \
    binary<Functor>(args, chunk);                                                  \
  }                                                                                \
  HOTLOOP_INSTANTIATE(name, BinaryArgs)
#include "kernels/binary.def"
#undef HOTLOOP_BINARY

}  // namespace hotloop::HOTLOOP_ISA
