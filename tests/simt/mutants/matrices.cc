// SPDX-License-Identifier: Apache-2.0
// One tile by the matrix units.
#include "simt/mutants/mutants.h"

namespace hotloop::cuda::mutants {
namespace {

// c (16, 8) = a (16, 16) b (16, 8) by one warp, in bf16; a second warp has other work.
template <Mistake mistake>
HL_KERNEL tile(const float* a, const float* b, float* c) {
  // Rows of 24 elements: 48 bytes, so that a matrix's 8 rows lie in different banks.
  constexpr int kStride = mistake == Mistake::kMisalignedRows ? 20 : 24;
  HL_SHARED(std::uint32_t, as, [16][kStride / 2]);
  HL_SHARED(std::uint32_t, bs, [16][kStride / 2]);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < 16 * 8; i += static_cast<int>(blockDim.x))
    as[i / 8][i % 8] = pack_bf16(a[2 * i], a[2 * i + 1]);
  for (int i = t; i < 16 * 4; i += static_cast<int>(blockDim.x))
    bs[i / 4][i % 4] = pack_bf16(b[2 * i], b[2 * i + 1]);
  sync();
  if (t >= (mistake == Mistake::kPartOfWarp ? 24 : kWarp)) return;
  std::uint32_t x[4], y[2];
  float d[4] = {};
  const int lane = lane_id();
  ldmatrix_x4(x, &as[lane % 16][lane / 16 * 4]);
  if constexpr (mistake == Mistake::kNotTransposed)
    ldmatrix_x2(y, &bs[lane % 16][0]);
  else
    ldmatrix_x2_trans(y, &bs[lane % 16][0]);
  mma_bf16(d, x, y);
  for (int e = 0; e < 4; ++e) c[(lane / 4 + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}

template <Mistake mistake>
bool run_tile() {
  Floats a(16 * 16, small), b(16 * 8, [](std::size_t i) { return static_cast<float>(i % 11); }), c(16 * 8);
  launch(nullptr, tile<mistake>, 1, 64, 0, a.data(), b.data(), c.data());
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = 0;
      for (std::size_t k = 0; k < 16; ++k) sum += a[i * 16 + k] * b[k * 8 + j];
      if (!(c[i * 8 + j] == sum)) return false;
    }
  return true;
}

constexpr Case kCases[] = {
    {"tile", run_tile<Mistake::kNone>},
    {"misaligned_rows", run_tile<Mistake::kMisalignedRows>},
    {"part_of_warp", run_tile<Mistake::kPartOfWarp>},
    {"not_transposed", run_tile<Mistake::kNotTransposed>},
};

}  // namespace

std::span<const Case> matrix_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
