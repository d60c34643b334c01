// SPDX-License-Identifier: Apache-2.0
// Blocks that leave partial sums for the last of them to add up, and blocks that should not look at each
// other.
#include "simt/mutants/mutants.h"

namespace hotloop::cuda::mutants {
namespace {

constexpr int kThreads = 64, kBlocks = 5, kCount = 300;

// y (1): the sum of x (n). partial (blocks), counter (1), zero before and after.
template <Mistake mistake>
HL_KERNEL total(const float* x, float* partial, int* counter, float* y, int n) {
  HL_SHARED(float, sums, [kThreads]);
  HL_SHARED(int, ticket, [1]);
  const int t = static_cast<int>(threadIdx.x), blocks = static_cast<int>(gridDim.x);
  float sum = 0;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + t; i < n; i += blocks * kThreads) sum += x[i];
  sums[t] = sum;
  if constexpr (mistake == Mistake::kFenceTooEarly) fence();
  sync();
  if (t == 0) {
    float all = 0;
    for (int i = 0; i < kThreads; ++i) all += sums[i];
    partial[blockIdx.x] = all;
    if constexpr (mistake != Mistake::kNoFence && mistake != Mistake::kFenceTooEarly) fence();
    ticket[0] = atomic_add(counter, 1);
  }
  if constexpr (mistake != Mistake::kNoBarrierBeforeTicket) sync();
  if (ticket[0] != blocks - 1) return;
  if (t == 0) {
    float all = 0;
    for (int i = 0; i < blocks; ++i) all += partial[i];
    *y = all;
    if constexpr (mistake != Mistake::kNoCounterReset) *counter = 0;
  }
}

template <Mistake mistake>
bool run_total() {
  Floats x(kCount, small), partial(kBlocks), counter(1), y(1);
  counter[0] = 0;
  float sum = 0;
  for (std::size_t i = 0; i < kCount; ++i) sum += x[i];
  for (int times = 0; times < 2; ++times) {
    y[0] = -1;
    launch(nullptr, total<mistake>, kBlocks, kThreads, 0, x.data(), partial.data(),
           reinterpret_cast<int*>(counter.data()), y.data(), kCount);
    if (!(y[0] == sum)) return false;
  }
  return true;
}

// In place: each element and its right neighbour, which may be another block's.
template <Mistake mistake>
HL_KERNEL smooth(const float* x, float* y, int n) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  float sum = 0;
  if (i < n) sum = x[i] + (i + 1 < n ? x[i + 1] : 0.0f);
  sync();
  if (i < n) y[i] = sum;
}

template <Mistake mistake>
bool run_smooth() {
  Floats x(kCount, small), y(kCount);
  std::vector<float> before(kCount);
  for (std::size_t i = 0; i < kCount; ++i) before[i] = x[i];
  float* const to = mistake == Mistake::kReadsNeighbour ? x.data() : y.data();
  launch(nullptr, smooth<mistake>, kBlocks, kThreads, 0, x.data(), to, kCount);
  for (std::size_t i = 0; i < kCount; ++i)
    if (!(to[i] == before[i] + (i + 1 < kCount ? before[i + 1] : 0.0f))) return false;
  return true;
}

constexpr Case kCases[] = {
    {"total", run_total<Mistake::kNone>},
    {"smooth", run_smooth<Mistake::kNone>},
    {"no_fence", run_total<Mistake::kNoFence>},
    {"fence_too_early", run_total<Mistake::kFenceTooEarly>},
    {"no_counter_reset", run_total<Mistake::kNoCounterReset>},
    {"no_barrier_before_ticket", run_total<Mistake::kNoBarrierBeforeTicket>},
    {"reads_neighbour", run_smooth<Mistake::kReadsNeighbour>},
};

}  // namespace

std::span<const Case> block_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
