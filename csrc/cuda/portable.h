// SPDX-License-Identifier: Apache-2.0
// All that kernels may use of CUDA. One source, two targets: nvcc makes device code of it; a C++ compiler
// makes a program in which every CUDA thread is a fiber of an emulator (tests/simt), so that each kernel is
// tested on machines without a GPU. Kernels hold no launch syntax, no assembly and no storage qualifiers of
// their own; a test reads the sources for them.
//
//   HL_KERNEL name(...)                   a kernel: void name(...), launched with launch() below
//   HL_DEVICE                             a function that kernels call
//   HL_SHARED(type, name, [d0][d1])       a shared array of the block, name[i][j], of no value at first
//   HL_DYNAMIC_SHARED(type, name)         type* name: the bytes that launch() was asked for; both are aligned
//                                         to 128 bytes
//   HL_BOUNDS(threads, blocks)            before a kernel's name: HL_KERNEL HL_BOUNDS(256, 2) name(...)
//   HL_UNROLL, HL_NO_UNROLL               before a loop
//   threadIdx, blockIdx, blockDim, gridDim
//   kWarp, lane_id(), warp_id()           of a one-dimensional block
//
//   launch(stream, kernel, grid, block, shared_bytes, args...)      host side
//
// In namespace hotloop::cuda, for all threads of a block, of a warp, or of `mask` in a warp that have not
// left the kernel:
//   sync()                                barrier of the block: what was written before is seen after it
//   sync_or(bool)                         the same, and whether it was true for any thread
//   sync_warp(mask)                       barrier of a warp's lanes; the next ones order no memory
//   shfl(v, lane), shfl_xor(v, lanes), shfl_down(v, lanes), ballot(bool)       32- or 64-bit v; then the mask
//   count_bits(v), lowest_bit(v)          of 32 bits; the lowest of none is -1
//   atomic_add(int*, v)                   the value before; for counters only: sums of floats would depend on
//                                         the order of threads
//   fence()                               what this thread wrote is seen by other blocks before what it
//                                         writes next
//   load4(p), store4(p, v), load2(p), store2(p, v)     16 or 8 aligned bytes at once
//   store_words(p, v)                     four words, at 16 aligned bytes of global memory: the compiler
//   makes four
//                                         stores of a store4 of what comes from pack_bf16
//   load_stream(p), store_stream(p, v)    float or Float4 that nobody reads again soon
//   copy_async<bytes>(shared, global, ok) 4, 8 or 16 aligned bytes to shared memory, zeros if not ok (global
//                                         is then not read)
//   cp_commit(), cp_wait<N>()             closes a group of copies; waits until all groups but the last N of
//                                         this thread have landed: others see them after a sync()
//   ldmatrix_x4(r, p), ldmatrix_x2(r, p), ldmatrix_x4_trans, ldmatrix_x2_trans     8x8 matrices of 16 bits
//   mma_bf16(d, a, b)                     d (16, 8) += a (16, 16) b (16, 8), bf16 in, float sums
//   mma_tf32(d, a, b)                     d (16, 8) += a (16, 8) b (8, 8), tf32 in, float sums
//   to_tf32(float)                        bits rounded to nearest, ties away, for mma_tf32
//   pack_bf16(lo, hi)                     two floats rounded to nearest even, in one word
// Instructions of sm_80 and up trap where the compiler's target is older: a launcher asks has_mma first.
#pragma once

#include "core/host_device.h"
#include "core/types.h"

#ifdef __CUDACC__
#include "cuda/portable_nvcc.h"
#else
#include "simt/portable_host.h"
#endif
