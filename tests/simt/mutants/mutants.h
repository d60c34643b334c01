// SPDX-License-Identifier: Apache-2.0
// Kernels that are right, and what they turn into with one mistake each: what the emulator is for. A case
// prepares memory, launches, and tells whether the numbers are right; the emulator has to tell what else went
// wrong.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda/portable.h"
#include "simt/device_memory.h"

namespace hotloop::cuda::mutants {

enum class Mistake {
  kNone,
  // Tiles in shared memory.
  kNoBarrierBeforeUse,
  kNoBarrierAfterUse,
  kDivergentBarrier,
  kSharedOffByOne,
  kReadOffByOne,
  kWriteOffByOne,
  kNotCleared,
  kTooMuchShared,
  kTooManyThreads,
  // Asynchronous copies.
  kNoWait,
  kWaitsForTooFew,
  kNoBarrierAfterWait,
  kOverwritesTooEarly,
  kMisalignedCopy,
  // Warps.
  kMaskWithoutSelf,
  kMaskOfMissing,
  kTooFewSteps,
  kShuffleInBranch,
  kNoWarpBarrier,
  kMisalignedLoad,
  // Blocks.
  kNoFence,
  kFenceTooEarly,
  kNoCounterReset,
  kNoBarrierBeforeTicket,
  kReadsNeighbour,
  // Matrix units.
  kMisalignedRows,
  kPartOfWarp,
  kNotTransposed,
  // Streams, graphs and memory.
  kUnorderedLaunches,
  kHostReusedEarly,
  kHostReadEarly,
  kReadsReleased,
};

struct Case {
  std::string_view name;
  bool (*run)();  // whether the numbers are right
};
// All of a file; right ones first.
std::span<const Case> tile_cases();
std::span<const Case> copy_cases();
std::span<const Case> warp_cases();
std::span<const Case> block_cases();
std::span<const Case> matrix_cases();
std::span<const Case> host_cases();

// Device memory for the length of a case.
class Floats {
 public:
  explicit Floats(std::size_t n) : n_(n), p_(static_cast<float*>(simt::allocate(n * sizeof(float)))) {}
  Floats(std::size_t n, float (*value)(std::size_t)) : Floats(n) {
    for (std::size_t i = 0; i < n; ++i) p_[i] = value(i);
  }
  ~Floats() { release(); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  void release() {
    if (const std::string what = simt::release(std::exchange(p_, nullptr)); !what.empty())
      simt::submit(nullptr, {{}, [what] { throw simt::Fault(what); }});
  }
  float* data() { return p_; }
  float& operator[](std::size_t i) { return p_[i]; }
  std::size_t size() const { return n_; }

 private:
  std::size_t n_;
  float* p_;
};

// Small whole numbers, of which sums are exact in every order.
inline float small(std::size_t i) { return static_cast<float>(i * 7 % 5) - 2.0f; }

}  // namespace hotloop::cuda::mutants
