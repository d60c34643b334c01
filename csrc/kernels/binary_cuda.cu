// SPDX-License-Identifier: Apache-2.0
// Arithmetic of two tensors with broadcasting: every line of binary.def. Bound by memory, 12 bytes an
// element: 16 bytes an access, and of operands that repeat only what is new comes from memory.
#include "kernels/kernel_cuda.h"
#include "kernels/math.h"
#include "kernels/strided_cuda.h"

namespace hotloop::cuda {
namespace {

using V = Vec<float>;

// out (dense) = a op b
template <class F>
HL_KERNEL binary(float* out, const float* a, const float* b, Strided<2> shape, int64 n, int64 n4) {
  const auto f = [](float x, float y) { return F::value(V(x), V(y)).v; };
  for_quads(
      n, n4,
      [&](int64 i) {
        int64 at[2];
        shape.find(i, at);
        const Float4 x = load_four(a + at[0], shape.stride[0][kInner]);
        const Float4 y = load_four(b + at[1], shape.stride[1][kInner]);
        store4(out + i, Float4{f(x.x, y.x), f(x.y, y.y), f(x.z, y.z), f(x.w, y.w)});
      },
      [&](int64 i) {
        int64 at[2];
        shape.find(i, at);
        out[i] = f(a[at[0]], b[at[1]]);
      });
}

template <class F>
void launch_binary(const BinaryArgs<float>& a, const Launch& l) {
  Strided<2> shape{{a.d0, a.d1, a.d2, a.d3}, {{a.a0, a.a1, a.a2, a.a3}, {a.b0, a.b1, a.b2, a.b3}}};
  const int64 n = shape.elements();
  if (n == 0) return;
  shape.merge();
  const int64 n4 = aligned16(a.out) ? shape.groups_of_four({a.a, a.b}) : 0;
  launch(stream_of(l), binary<F>, grid_for(n4 > 0 ? n4 : n, l), kThreads, 0, a.out, a.a, a.b, shape, n, n4);
}

}  // namespace

#define HOTLOOP_BINARY(name, Functor) \
  void name##_launch(const BinaryArgs<float>& a, const Launch& l) { launch_binary<Functor>(a, l); }
#include "kernels/binary.def"
#undef HOTLOOP_BINARY

}  // namespace hotloop::cuda
