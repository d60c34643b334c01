// SPDX-License-Identifier: Apache-2.0
// What a kernel is. For each line of kernels.def a family file defines two function templates:
//
//   int64 NAME_chunks(const Args<real>&)                          how many chunks of work; from shapes alone,
//                                                                 never from the number of threads
//   void  NAME_run(const Args<real>&, const StepContext&, int64)  one chunk; it owns what it writes
//
// A kernel whose chunks repeat work that one thread could do once, or read memory in shorter pieces than it
// would, has a third, which is found by its arguments:
//
//   void  all_chunks(const Args<real>&, const StepContext&)       every chunk, to the same bits
//
// Any thread may run any chunk in any order: the bits do not depend on it. 0 chunks is legal.
#pragma once

#include "kernels/args.h"

namespace hotloop {

// What varies by step and is therefore never part of a kernel's bound arguments.
struct StepContext {
  std::uint64_t seed = 0;           // the user's seed
  std::uint32_t run = 0;            // which call of fit
  std::uint64_t step = 0;           // optimiser steps since the run began
  const double* groups = nullptr;   // (groups, 2): lr, weight_decay of each parameter group
  const double* dropout = nullptr;  // (layers): drop probability of each dropout layer
  int64 first_row = 0;              // where the rows of this call stand in the batch
  bool first = true, last = true;   // whether the batch is the first, the last of those that share an update
};

// Elements per chunk of element-wise work: 16384 floats are 64 KB, a fair share of an L2 cache and long
// enough (about 2 us) to hide the claiming of a chunk.
constexpr int64 kElementwiseChunk = 16384;

// Elements of a chunk where each has its own result, as in an update: chunks of one size and an even number
// of them, so that a team of two shares them evenly. Half of 8192 elements of AdamW is what a barrier costs.
constexpr int64 even_chunk(int64 n) {
  constexpr int64 kAlone = 8192, kLines = 64;
  if (n <= kAlone) return kAlone;
  const int64 chunks = 2 * ((n + 2 * kElementwiseChunk - 1) / (2 * kElementwiseChunk));
  return ((n + chunks - 1) / chunks + kLines - 1) / kLines * kLines;
}

}  // namespace hotloop

#ifdef HOTLOOP_ISA
namespace hotloop::HOTLOOP_ISA {

#define HOTLOOP_KERNEL(name, Args)        \
  template <class real>                   \
  int64 name##_chunks(const Args<real>&); \
  template <class real>                   \
  void name##_run(const Args<real>&, const StepContext&, int64 chunk);
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
template <class real>
void all_chunks(const MatmulArgs<real>&, const StepContext&);
template <class real>
void all_chunks(const MatmulPartsArgs<real>&, const StepContext&);
template <class real>
void all_chunks(const LayerNormParamBwdArgs<real>&, const StepContext&);
template <class real>
void all_chunks(const RmsNormParamBwdArgs<real>&, const StepContext&);

}  // namespace hotloop::HOTLOOP_ISA

// At the end of a family file: makes the kernel's code in this unit, for every scalar type of its ISA.
#define HOTLOOP_INSTANTIATE_FOR(real, name, Args)        \
  template int64 name##_chunks<real>(const Args<real>&); \
  template void name##_run<real>(const Args<real>&, const StepContext&, int64);
#ifdef HOTLOOP_ISA_HAS_DOUBLE
#define HOTLOOP_INSTANTIATE(name, Args)      \
  HOTLOOP_INSTANTIATE_FOR(float, name, Args) \
  HOTLOOP_INSTANTIATE_FOR(double, name, Args)
#else
#define HOTLOOP_INSTANTIATE(name, Args) HOTLOOP_INSTANTIATE_FOR(float, name, Args)
#endif
#endif
