// SPDX-License-Identifier: Apache-2.0
// Element-wise kernels of dense tensors: every function of unary.def with its gradient, dropout, fill and
// clamp; the functions themselves are in math.h. Bound by memory: 16 bytes an access where the operands are
// aligned, eight elements a thread where dropout wants a whole Philox block.
#include "cuda/flat.h"
#include "kernels/dropout_cuda.h"
#include "kernels/kernel_cuda.h"
#include "kernels/math.h"

namespace hotloop::cuda {
namespace {

using V = Vec<float>;

template <class F>
HL_KERNEL unary_fwd(float* y, const float* x, int64 n, int64 n4, float p0, float p1) {
  const auto f = [=](float v) { return F::value(V(v), V(p0), V(p1)).v; };
  for (int64 i = first_index(); i < n4; i += stride()) {
    const Float4 v = load4(x + 4 * i);
    store4(y + 4 * i, Float4{f(v.x), f(v.y), f(v.z), f(v.w)});
  }
  for (int64 i = 4 * n4 + first_index(); i < n; i += stride()) y[i] = f(x[i]);
}

// dx = dropout(dy) * f'(saved)
template <class F>
HL_KERNEL unary_bwd(float* dx, const float* dy, const float* saved, int64 n, int64 n4, float p0, float p1) {
  const auto f = [=](float s, float d) { return F::grad(V(s), V(d), V(p0), V(p1)).v; };
  for (int64 i = first_index(); i < n4; i += stride()) {
    const Float4 s = load4(saved + 4 * i), d = load4(dy + 4 * i);
    store4(dx + 4 * i, Float4{f(s.x, d.x), f(s.y, d.y), f(s.z, d.z), f(s.w, d.w)});
  }
  for (int64 i = 4 * n4 + first_index(); i < n; i += stride()) dx[i] = f(saved[i], dy[i]);
}

// Blocks of eight elements, a thread each: body(first element, how many of the eight, Philox block).
template <class Body>
HL_DEVICE void for_dropped(const DropoutMask& mask, int64 n, Body body) {
  for (int64 b = first_index(); b * kPhiloxElements < n; b += stride()) {
    const int64 first = b * kPhiloxElements, left = n - first;
    const PhiloxBlock bits = mask.identity() ? PhiloxBlock{} : mask.block(static_cast<std::uint64_t>(b));
    body(first, static_cast<int>(left < kPhiloxElements ? left : kPhiloxElements), bits);
  }
}

template <class F>
HL_KERNEL unary_bwd_dropped(float* dx, const float* dy, const float* saved, int64 n, float p0, float p1,
                            int64 layer, const DeviceStep* step) {
  const DropoutMask mask(step, layer);
  for_dropped(mask, n, [&](int64 first, int count, const PhiloxBlock& bits) {
    HL_UNROLL
    for (int e = 0; e < kPhiloxElements; ++e) {
      const int64 i = first + e;
      if (e >= count) break;
      dx[i] = F::grad(V(saved[i]), V(mask.apply(dy[i], bits, e)), V(p0), V(p1)).v;
    }
  });
}

HL_KERNEL dropout(float* y, const float* x, int64 n, int64 layer, const DeviceStep* step) {
  const DropoutMask mask(step, layer);
  for_dropped(mask, n, [&](int64 first, int count, const PhiloxBlock& bits) {
    HL_UNROLL
    for (int e = 0; e < kPhiloxElements; ++e) {
      if (e < count) y[first + e] = mask.apply(x[first + e], bits, e);
    }
  });
}

HL_KERNEL fill(float* out, int64 n, float value) {
  for (int64 i = first_index(); i < n; i += stride()) out[i] = value;
}

HL_KERNEL clamp(float* x, int64 n, float lo, float hi) {
  // NaN stays: min and max give their second operand.
  for (int64 i = first_index(); i < n; i += stride()) x[i] = min(V(hi), max(V(lo), V(x[i]))).v;
}

template <class F>
void launch_fwd(const UnaryFwdArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), unary_fwd<F>, grid_for(ceil_div(a.n, 4), l), kThreads, 0, a.y, a.x, a.n,
         quads(a.n, a.y, a.x), a.p0, a.p1);
}

template <class F>
void launch_bwd(const UnaryBwdArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  if (a.dropout < 0)
    launch(stream_of(l), unary_bwd<F>, grid_for(ceil_div(a.n, 4), l), kThreads, 0, a.dx, a.dy, a.saved, a.n,
           quads(a.n, a.dx, a.dy, a.saved), a.p0, a.p1);
  else
    launch(stream_of(l), unary_bwd_dropped<F>, grid_for(ceil_div(a.n, kPhiloxElements), l), kThreads, 0, a.dx,
           a.dy, a.saved, a.n, a.p0, a.p1, a.dropout, l.step);
}

}  // namespace

#define HOTLOOP_UNARY(name, Functor, reads)                                                            \
  void name##_fwd_launch(const UnaryFwdArgs<float>& a, const Launch& l) { launch_fwd<Functor>(a, l); } \
  void name##_bwd_launch(const UnaryBwdArgs<float>& a, const Launch& l) { launch_bwd<Functor>(a, l); }
#include "kernels/unary.def"
#undef HOTLOOP_UNARY

void dropout_launch(const DropoutArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), dropout, grid_for(ceil_div(a.n, kPhiloxElements), l), kThreads, 0, a.y, a.x, a.n,
         a.dropout, l.step);
}

void fill_launch(const FillArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), fill, grid_for(a.n, l), kThreads, 0, a.out, a.n, a.value);
}

void clamp_launch(const ClampArgs<float>& a, const Launch& l) {
  if (a.n == 0) return;
  launch(stream_of(l), clamp, grid_for(a.n, l), kThreads, 0, a.x, a.n, a.lo, a.hi);
}

}  // namespace hotloop::cuda
