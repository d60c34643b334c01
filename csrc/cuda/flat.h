// SPDX-License-Identifier: Apache-2.0
// Loops of kernels over flat tensors: four elements (16 bytes) at a time where every operand is aligned, and
// what is left one by one. The grid may be smaller than the work: a thread goes on by the grid's size.
#pragma once

#include "cuda/portable.h"

namespace hotloop::cuda {

HL_DEVICE int64 first_index() { return int64{blockIdx.x} * blockDim.x + threadIdx.x; }
HL_DEVICE int64 stride() { return int64{gridDim.x} * blockDim.x; }

// Whether four floats may be loaded at once from each pointer; nullptr is no operand.
template <class... Pointers>
bool aligned16(const Pointers*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

// How many groups of four of n elements may be loaded at once.
template <class... Pointers>
int64 quads(int64 n, const Pointers*... p) {
  return aligned16(p...) ? n / 4 : 0;
}

// four(i) for the elements i to i + 3 of each of the first n4 groups, one(i) for the others below n.
template <class Four, class One>
HL_DEVICE void for_quads(int64 n, int64 n4, Four four, One one) {
  for (int64 q = first_index(); q < n4; q += stride()) four(4 * q);
  for (int64 i = 4 * n4 + first_index(); i < n; i += stride()) one(i);
}

// a / b of numbers that are not negative: by 32 bits where they fit, a fifth of the instructions.
HL_DEVICE int64 quotient(int64 a, int64 b) {
  if (((a | b) >> 32) == 0)
    return static_cast<int64>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b));
  return a / b;
}

}  // namespace hotloop::cuda
