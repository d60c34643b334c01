// SPDX-License-Identifier: Apache-2.0
// Rows by warps: sums by shuffles, neighbours through shared memory of the warp.
#include "simt/mutants/mutants.h"

namespace hotloop::cuda::mutants {
namespace {

constexpr int kRows = 7, kWidth = 72, kThreads = 128;

// y (rows): the sums of x (rows, width), a warp a row. Warps without a row leave together.
template <Mistake mistake>
HL_KERNEL row_sums(const float* x, float* y, int rows, int width) {
  const int row = static_cast<int>(blockIdx.x) * kThreads / kWarp + warp_id();
  if (row >= rows) return;
  float sum = 0;
  for (int i = 4 * lane_id(); i < width; i += 4 * kWarp) {
    const Float4 v = load4(x + row * width + i + (mistake == Mistake::kMisalignedLoad ? 1 : 0));
    sum += v.x + v.y + v.z + v.w;
  }
  const unsigned mask = mistake == Mistake::kMaskWithoutSelf ? 0xFFFFu : kAllLanes;
  for (int d = mistake == Mistake::kTooFewSteps ? 8 : 16; d > 0; d /= 2) {
    if constexpr (mistake == Mistake::kShuffleInBranch) {
      if (lane_id() < 16) sum += shfl_xor(sum, d);
    } else {
      sum += shfl_xor(sum, d, mask);
    }
    if constexpr (mistake == Mistake::kShuffleInBranch) sync_warp();
  }
  if (lane_id() == 0) y[row] = sum;
}

template <Mistake mistake>
bool run_row_sums() {
  Floats x(kRows * kWidth + 4, small), y(kRows);
  launch(nullptr, row_sums<mistake>, 2, kThreads, 0, x.data(), y.data(), kRows, kWidth);
  for (std::size_t r = 0; r < kRows; ++r) {
    float sum = 0;
    for (std::size_t i = 0; i < kWidth; ++i) sum += x[r * kWidth + i];
    if (!(y[r] == sum)) return false;
  }
  return true;
}

// y (n): x with the two halves of each warp's elements exchanged; n a multiple of the block.
template <Mistake mistake>
HL_KERNEL exchange_halves(const float* x, float* y) {
  HL_SHARED(float, kept, [kThreads]);
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * kThreads + t;
  kept[t] = x[i];
  if constexpr (mistake != Mistake::kNoWarpBarrier) sync_warp();
  y[i] = kept[t ^ 16];
}

template <Mistake mistake>
bool run_exchange() {
  Floats x(2 * kThreads, [](std::size_t i) { return static_cast<float>(i); }), y(2 * kThreads);
  launch(nullptr, exchange_halves<mistake>, 2, kThreads, 0, x.data(), y.data());
  for (std::size_t i = 0; i < 2 * kThreads; ++i)
    if (!(y[i] == x[i ^ 16])) return false;
  return true;
}

// The bytes of a and b (n floats each) change places, a thread a byte: neighbours share words, and that is
// right.
HL_KERNEL exchange_bytes(float* a, float* b, int n) {
  auto* const x = reinterpret_cast<unsigned char*>(a);
  auto* const y = reinterpret_cast<unsigned char*>(b);
  for (int i = static_cast<int>(threadIdx.x); i < 4 * n; i += kThreads) {
    const unsigned char kept = x[i];
    x[i] = y[i];
    y[i] = kept;
  }
}

bool run_bytes() {
  Floats x(kWidth, small), y(kWidth, [](std::size_t i) { return static_cast<float>(i); });
  launch(nullptr, exchange_bytes, 1, kThreads, 0, x.data(), y.data(), kWidth);
  for (std::size_t i = 0; i < kWidth; ++i)
    if (!(x[i] == static_cast<float>(i) && y[i] == small(i))) return false;
  return true;
}

// y (1): the sum of 20 numbers by a block of 20 threads, which names the lanes that exist.
template <Mistake mistake>
HL_KERNEL short_sum(const float* x, float* y) {
  constexpr unsigned kLanes = mistake == Mistake::kMaskOfMissing ? kAllLanes : 0xFFFFFu;
  float sum = x[threadIdx.x];
  for (int d = 16; d > 0; d /= 2) {
    const float other = shfl_down(sum, d, kLanes);
    if (mistake == Mistake::kMaskOfMissing || lane_id() + d < 20) sum += other;
  }
  if (threadIdx.x == 0) *y = sum;
}

template <Mistake mistake>
bool run_short_sum() {
  Floats x(20, small), y(1);
  launch(nullptr, short_sum<mistake>, 1, 20, 0, x.data(), y.data());
  float sum = 0;
  for (std::size_t i = 0; i < 20; ++i) sum += x[i];
  return y[0] == sum;
}

constexpr Case kCases[] = {
    {"row_sums", run_row_sums<Mistake::kNone>},
    {"exchange_halves", run_exchange<Mistake::kNone>},
    {"bytes", run_bytes},
    {"short_sum", run_short_sum<Mistake::kNone>},
    {"mask_without_self", run_row_sums<Mistake::kMaskWithoutSelf>},
    {"mask_of_missing", run_short_sum<Mistake::kMaskOfMissing>},
    {"too_few_steps", run_row_sums<Mistake::kTooFewSteps>},
    {"shuffle_in_branch", run_row_sums<Mistake::kShuffleInBranch>},
    {"misaligned_load", run_row_sums<Mistake::kMisalignedLoad>},
    {"no_warp_barrier", run_exchange<Mistake::kNoWarpBarrier>},
};

}  // namespace

std::span<const Case> warp_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
