// SPDX-License-Identifier: Apache-2.0
// Rows through two buffers that are filled by asynchronous copies while the other is read.
#include "simt/mutants/mutants.h"

namespace hotloop::cuda::mutants {
namespace {

constexpr int kWidth = 256, kRows = 6, kThreads = kWidth / 4;

// y (rows, kThreads), whose rows sum to that of x (rows, kWidth) times its mirror image: threads read what
// others copied.
template <Mistake mistake>
HL_KERNEL mirrored(const float* x, float* y, int rows) {
  HL_SHARED(float, buffer, [2][kWidth]);
  const int t = static_cast<int>(threadIdx.x);
  constexpr int off = mistake == Mistake::kMisalignedCopy ? 1 : 0;
  const auto fetch = [&](int row) {
    if (row < rows) copy_async<16>(&buffer[row % 2][4 * t], x + row * kWidth + 4 * t - (t > 0 ? off : 0));
    cp_commit();
  };
  fetch(0);
  for (int row = 0; row < rows; ++row) {
    if constexpr (mistake != Mistake::kOverwritesTooEarly) sync();
    fetch(row + 1);
    if constexpr (mistake == Mistake::kWaitsForTooFew)
      cp_wait<2>();
    else if constexpr (mistake != Mistake::kNoWait)
      cp_wait<1>();
    if constexpr (mistake != Mistake::kNoBarrierAfterWait) sync();
    float sum = 0;
    for (int i = t; i < kWidth; i += kThreads) sum += buffer[row % 2][i] * buffer[row % 2][kWidth - 1 - i];
    y[row * kThreads + t] = sum;
  }
}

template <Mistake mistake>
bool run_mirrored() {
  Floats x(kRows * kWidth, small), y(kRows * kThreads);
  launch(nullptr, mirrored<mistake>, 1, kThreads, 0, x.data(), y.data(), kRows);
  for (std::size_t r = 0; r < kRows; ++r) {
    float wanted = 0, sum = 0;
    for (std::size_t i = 0; i < kWidth; ++i) wanted += x[r * kWidth + i] * x[r * kWidth + kWidth - 1 - i];
    for (std::size_t i = 0; i < kThreads; ++i) sum += y[r * kThreads + i];
    if (!(sum == wanted)) return false;
  }
  return true;
}

constexpr Case kCases[] = {
    {"mirrored", run_mirrored<Mistake::kNone>},
    {"no_wait", run_mirrored<Mistake::kNoWait>},
    {"waits_for_too_few", run_mirrored<Mistake::kWaitsForTooFew>},
    {"no_barrier_after_wait", run_mirrored<Mistake::kNoBarrierAfterWait>},
    {"overwrites_too_early", run_mirrored<Mistake::kOverwritesTooEarly>},
    {"misaligned_copy", run_mirrored<Mistake::kMisalignedCopy>},
};

}  // namespace

std::span<const Case> copy_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
