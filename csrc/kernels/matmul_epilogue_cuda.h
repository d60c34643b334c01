// SPDX-License-Identifier: Apache-2.0
// What follows a product on the device, as the comment on MatmulArgs has it: one function object that takes a
// few sums of one row and finishes them. Both ways of multiplying, on plain and on matrix units, use it.
//
// A kernel brings its sums into shared memory first and then calls this in a loop over rows: then a thread's
// outputs lie side by side (16 bytes an access), and the loop's text is there once for a kernel, not once for
// each accumulator. The activation is a call, so that a kernel holds no copy of all of them; the branch in it
// is the same for a whole block.
#pragma once

#include "kernels/dropout_cuda.h"
#include "kernels/kernel_cuda.h"
#include "kernels/math.h"

namespace hotloop::cuda {

// What kernels are told of it, by value.
struct EpilogueArgs {
  float* out;         // (m, n), row stride `stride`, as all of these
  float* saved;       // or null, as all that follow
  const float* bias;  // (n)
  const float* gate;
  const float* residual;
  int64 n, stride, dropout;
  float alpha, beta, p0, p1;
  int activation;
  bool aligned;  // four columns from a multiple of four on are 16 aligned bytes
};

inline EpilogueArgs epilogue_of(const MatmulArgs<float>& a, const MatmulBatch& batch) {
  const auto odd = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 != 0; };
  const bool aligned = a.out_stride % 4 == 0 && !odd(a.out) && !odd(a.saved) && !odd(a.bias) &&
                       !odd(a.gate) && !odd(a.residual) && batch.out[0] % 4 == 0 && batch.out[1] % 4 == 0;
  return {a.out,
          a.saved,
          a.bias,
          a.gate,
          a.residual,
          a.n,
          a.out_stride,
          a.dropout,
          static_cast<float>(a.alpha),
          static_cast<float>(a.beta),
          static_cast<float>(a.p0),
          static_cast<float>(a.p1),
          static_cast<int>(a.activation),
          aligned};
}

enum Activation : int {
#define HOTLOOP_UNARY(name, Functor, reads) k_##name,
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
};

// Whether the gradient of an activation reads its argument, not its value.
HOTLOOP_HD inline bool reads_input(int activation) {
  enum Reads { Input, Output, Sign };
  switch (activation) {
#define HOTLOOP_UNARY(name, Functor, reads) \
  case k_##name:                            \
    return reads == Input;
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
    default:
      return true;
  }
}

// f(z); z itself without an activation
HOTLOOP_HD __attribute__((noinline)) inline Float4 activate(int activation, Float4 z, float p0, float p1) {
  using V = Vec<float>;
  switch (activation) {
#define HOTLOOP_UNARY(name, Functor, reads)                                       \
  case k_##name: {                                                                \
    const auto f = [&](float x) { return Functor::value(V(x), V(p0), V(p1)).v; }; \
    return {f(z.x), f(z.y), f(z.z), f(z.w)};                                      \
  }
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
    default:
      return z;
  }
}

// d f'(gate); d itself without an activation
HOTLOOP_HD __attribute__((noinline)) inline Float4 activate_grad(int activation, Float4 gate, Float4 d,
                                                                 float p0, float p1) {
  using V = Vec<float>;
  switch (activation) {
#define HOTLOOP_UNARY(name, Functor, reads)                                                     \
  case k_##name: {                                                                              \
    const auto f = [&](float s, float x) { return Functor::grad(V(s), V(x), V(p0), V(p1)).v; }; \
    return {f(gate.x, d.x), f(gate.y, d.y), f(gate.z, d.z), f(gate.w, d.w)};                    \
  }
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
    default:
      return d;
  }
}

class Epilogue {
 public:
  // offset: of the matrix of a batch that it finishes, in out
  HL_DEVICE Epilogue(const EpilogueArgs& args, const DeviceStep* step, int64 offset = 0)
      : a_(args), mask_(step, args.dropout) {
    a_.out += offset;
  }

  // sums: A B at (row, column), (row, column + 1), ...; `count` of them, at most four, are elements of out.
  HL_DEVICE void operator()(int64 row, int64 column, Float4 sums, int count) const {
    const int64 at = row * a_.stride + column;
    const bool whole = a_.aligned && count == 4 && column % 4 == 0;
    const Float4 before = a_.beta != 0.0f ? load(a_.out + at, count, whole) : Float4{};
    const Float4 bias = a_.bias != nullptr ? load(a_.bias + column, count, whole) : Float4{};
    const Float4 gate = a_.gate != nullptr ? load(a_.gate + at, count, whole) : Float4{};
    const Float4 residual = a_.residual != nullptr ? load(a_.residual + at, count, whole) : Float4{};
    const auto z_of = [&](float sum, float old, float b) {
      const float product = a_.alpha * sum;
      return (a_.beta != 0.0f ? ::fmaf(a_.beta, old, product) : product) + b;
    };
    Float4 v{z_of(sums.x, before.x, bias.x), z_of(sums.y, before.y, bias.y), z_of(sums.z, before.z, bias.z),
             z_of(sums.w, before.w, bias.w)};
    if (a_.gate == nullptr) {
      const bool keep_argument = reads_input(a_.activation);
      if (a_.saved != nullptr && keep_argument) store(a_.saved + at, v, count, whole);
      if (a_.activation >= 0) v = activate(a_.activation, v, a_.p0, a_.p1);
      if (a_.saved != nullptr && !keep_argument) store(a_.saved + at, v, count, whole);
    }
    if (!mask_.identity()) v = drop(v, row * a_.n + column);
    if (a_.gate != nullptr && a_.activation >= 0) v = activate_grad(a_.activation, gate, v, a_.p0, a_.p1);
    if (a_.residual != nullptr) {
      v = {v.x + residual.x, v.y + residual.y, v.z + residual.z, v.w + residual.w};
    }
    store(a_.out + at, v, count, whole);
  }

 private:
  HL_DEVICE static Float4 load(const float* p, int count, bool whole) {
    if (whole) return load4(p);
    return {p[0], count > 1 ? p[1] : 0.0f, count > 2 ? p[2] : 0.0f, count > 3 ? p[3] : 0.0f};
  }
  HL_DEVICE static void store(float* p, Float4 v, int count, bool whole) {
    if (whole) return store4(p, v);
    p[0] = v.x;
    if (count > 1) p[1] = v.y;
    if (count > 2) p[2] = v.z;
    if (count > 3) p[3] = v.w;
  }

  // Elements e ... e + 3 of the batch: of one Philox block, or where they straddle two, of both.
  HL_DEVICE Float4 drop(Float4 v, int64 e) const {
    const std::uint64_t number = static_cast<std::uint64_t>(e) / kPhiloxElements;
    const int first = static_cast<int>(e % kPhiloxElements);
    const PhiloxBlock bits = mask_.block(number);
    // all 64 bits that four half-words take, whichever words they lie in
    std::uint64_t low = (std::uint64_t{bits.word[1]} << 32) | bits.word[0];
    std::uint64_t high = (std::uint64_t{bits.word[3]} << 32) | bits.word[2];
    if (first >= 4) low = high;
    if (first > 4) {
      const PhiloxBlock next = mask_.block(number + 1);
      high = (std::uint64_t{next.word[1]} << 32) | next.word[0];
    }
    const int shift = 16 * (first % 4);
    const std::uint64_t halves = shift == 0 ? low : (low >> shift) | (high << (64 - shift));
    const auto one = [&](float x, int i) {
      const auto half = static_cast<std::uint32_t>(halves >> (16 * i)) & 0xFFFFu;
      return half < mask_.threshold ? 0.0f : x * mask_.scale;
    };
    return {one(v.x, 0), one(v.y, 1), one(v.z, 2), one(v.w, 3)};
  }

  EpilogueArgs a_;
  DropoutMask mask_;
};

}  // namespace hotloop::cuda
