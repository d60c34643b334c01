// SPDX-License-Identifier: Apache-2.0
// A product by tiles in shared memory, with ragged edges.
#include "simt/mutants/mutants.h"

namespace hotloop::cuda::mutants {
namespace {

constexpr int kTile = 16, kM = 40, kN = 35, kK = 50;

// c (m, n) = a (m, k) b (k, n), a thread for each element of c.
template <Mistake mistake>
HL_KERNEL product(const float* a, const float* b, float* c, int m, int n, int k) {
  HL_SHARED(float, as, [kTile][kTile]);
  HL_SHARED(float, bs, [kTile][kTile]);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int row = static_cast<int>(blockIdx.y) * kTile + y, col = static_cast<int>(blockIdx.x) * kTile + x;
  const int past = mistake == Mistake::kSharedOffByOne ? static_cast<int>(gridDim.z) : 0;
  constexpr int more = mistake == Mistake::kReadOffByOne ? kK : 0;
  float sum = 0;
  for (int k0 = 0; k0 < k; k0 += kTile) {
    as[y][x + past] = row < m && k0 + x < k ? a[row * k + k0 + x] : 0.0f;
    bs[y][x] = k0 + y < k + more && col < n ? b[(k0 + y) * n + col] : 0.0f;
    if constexpr (mistake == Mistake::kDivergentBarrier) {
      if (row < m)
        sync();
      else
        sync();  // elsewhere
    } else if constexpr (mistake != Mistake::kNoBarrierBeforeUse) {
      sync();
    }
    for (int i = 0; i < kTile; ++i) sum += as[y][i + past] * bs[i][x];
    if constexpr (mistake != Mistake::kNoBarrierAfterUse) sync();
  }
  constexpr int extra = mistake == Mistake::kWriteOffByOne ? 1 : 0;
  if (row < m + extra && col < n) c[row * n + col] = sum;
}

template <Mistake mistake>
bool run_product() {
  Floats a(kM * kK, small), b(kK * kN, small), c(kM * kN);
  const unsigned side = mistake == Mistake::kTooManyThreads ? 64 : kTile;
  const std::size_t shared = mistake == Mistake::kTooMuchShared ? 226 * 1024 + 1 : 0;
  launch(nullptr, product<mistake>, Dim3((kN + kTile - 1) / kTile, (kM + kTile - 1) / kTile),
         Dim3(side, side), shared, a.data(), b.data(), c.data(), kM, kN, kK);
  for (std::size_t i = 0; i < kM; ++i)
    for (std::size_t j = 0; j < kN; ++j) {
      float sum = 0;
      for (std::size_t k = 0; k < kK; ++k) sum += a[i * kK + k] * b[k * kN + j];
      if (!(c[i * kN + j] == sum)) return false;
    }
  return true;
}

// How often each of four values occurs.
template <Mistake mistake>
HL_KERNEL histogram(const float* x, float* counts, int n) {
  HL_SHARED(int, found, [4]);
  if constexpr (mistake != Mistake::kNotCleared)
    if (threadIdx.x < 4) found[threadIdx.x] = 0;
  sync();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    if (x[i] >= 0 && x[i] < 4) atomic_add(&found[static_cast<int>(x[i])], 1);
  sync();
  if (threadIdx.x < 4) counts[threadIdx.x] = static_cast<float>(found[threadIdx.x]);
}

template <Mistake mistake>
bool run_histogram() {
  constexpr int kCount = 100;
  Floats x(kCount, [](std::size_t i) { return static_cast<float>(i % 4); }), counts(4);
  launch(nullptr, histogram<mistake>, 1, 64, 0, x.data(), counts.data(), kCount);
  for (std::size_t i = 0; i < 4; ++i)
    if (!(counts[i] == kCount / 4)) return false;
  return true;
}

constexpr Case kCases[] = {
    {"product", run_product<Mistake::kNone>},
    {"histogram", run_histogram<Mistake::kNone>},
    {"no_barrier_before_use", run_product<Mistake::kNoBarrierBeforeUse>},
    {"no_barrier_after_use", run_product<Mistake::kNoBarrierAfterUse>},
    {"divergent_barrier", run_product<Mistake::kDivergentBarrier>},
    {"shared_off_by_one", run_product<Mistake::kSharedOffByOne>},
    {"read_off_by_one", run_product<Mistake::kReadOffByOne>},
    {"write_off_by_one", run_product<Mistake::kWriteOffByOne>},
    {"too_much_shared", run_product<Mistake::kTooMuchShared>},
    {"too_many_threads", run_product<Mistake::kTooManyThreads>},
    {"not_cleared", run_histogram<Mistake::kNotCleared>},
};

}  // namespace

std::span<const Case> tile_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
