// SPDX-License-Identifier: Apache-2.0
// What a warp's matrix instructions do, written down from the fragment layouts of the PTX manual. The last
// lane to arrive does the work of all. A tensor core sums in an order and a rounding of its own: compare with
// tolerances.
#include <bit>
#include <cmath>
#include <cstring>

#include "simt/machine.h"
#include "simt/portable_host.h"
#include "simt/race.h"

namespace hotloop::cuda {
namespace {

float from_bf16(std::uint32_t word, unsigned half) {
  return std::bit_cast<float>(half ? word & 0xFFFF0000u : word << 16);
}

// The tensor core reads the upper 19 bits of a tf32 operand.
float from_tf32(std::uint32_t word) { return std::bit_cast<float>(word & 0xFFFFE000u); }

struct Vote {
  bool in;
  unsigned out;
};

void vote_all(simt::Lanes mine) {
  unsigned votes = 0;
  for (unsigned i = 0; i < simt::kLanes; ++i)
    if (mine[i] && static_cast<const Vote*>(mine[i])->in) votes |= 1u << i;
  for (void* const p : mine)
    if (p) static_cast<Vote*>(p)->out = votes;
}

struct Rows {
  const void* row;   // of 8 elements, 16 bytes: lane i gives row i % 8 of matrix i / 8
  std::uint32_t* r;  // one word of each matrix
};

// Lane i gets of each matrix elements (i / 4, 2 (i % 4)) and the next of its row; transposed: (2 (i % 4), i /
// 4) and the next of its column.
template <unsigned matrices, bool trans>
void load_all(simt::Lanes mine) {
  for (unsigned q = 0; q < matrices; ++q)
    for (unsigned i = 0; i < simt::kLanes; ++i) {
      std::uint16_t half[2];
      for (unsigned e = 0; e < 2; ++e) {
        const unsigned row = trans ? 2 * (i % 4) + e : i / 4, col = trans ? i / 4 : 2 * (i % 4) + e;
        const auto* const from = static_cast<const Rows*>(mine[q * 8 + row]);
        std::memcpy(&half[e], static_cast<const char*>(from->row) + col * sizeof half[e], sizeof half[e]);
      }
      static_cast<Rows*>(mine[i])->r[q] = half[0] | static_cast<std::uint32_t>(half[1]) << 16;
    }
}

template <unsigned matrices, bool trans>
void load(std::uint32_t* r, const void* p, const simt::Site& site) {
  if (static_cast<unsigned>(simt::lane) < matrices * 8) {
    simt::check_aligned(site, p, 16);
    simt::check_shared(site, p, 16);
    simt::race::read(p, 16, simt::race::Kind::kMatrix);
  }
  Rows mine{p, r};
  simt::whole_warp(site, &mine, load_all<matrices, trans>);
}

struct Product {
  float* d;
  const std::uint32_t *a, *b;
};

// d (16, 8) += a (16, depth) b (depth, 8). With g = lane / 4 and t = lane % 4 a lane holds of d rows g and g
// + 8, columns 2t and 2t + 1.
template <unsigned depth>
void accumulate(simt::Lanes mine, const float (&a)[16][depth], const float (&b)[depth][8]) {
  for (unsigned i = 0; i < simt::kLanes; ++i) {
    float* const d = static_cast<const Product*>(mine[i])->d;
    for (unsigned e = 0; e < 4; ++e) {
      const unsigned row = i / 4 + e / 2 * 8, col = 2 * (i % 4) + e % 2;
      float sum = 0;
      for (unsigned k = 0; k < depth; ++k) sum += a[row][k] * b[k][col];
      d[e] += sum;
    }
  }
}

// Words a[0..3] hold rows g, g + 8, g, g + 8 and columns 2t, 2t + 1, the last two 8 further; b[0..1] rows 2t,
// 2t + 1 and 8 further of column g.
void bf16_all(simt::Lanes mine) {
  float a[16][16], b[16][8];
  for (unsigned i = 0; i < simt::kLanes; ++i) {
    const auto& m = *static_cast<const Product*>(mine[i]);
    const unsigned g = i / 4, t = i % 4;
    for (unsigned w = 0; w < 4; ++w)
      for (unsigned e = 0; e < 2; ++e) a[g + w % 2 * 8][2 * t + e + w / 2 * 8] = from_bf16(m.a[w], e);
    for (unsigned w = 0; w < 2; ++w)
      for (unsigned e = 0; e < 2; ++e) b[2 * t + e + w * 8][g] = from_bf16(m.b[w], e);
  }
  accumulate(mine, a, b);
}

// Words a[0..3] hold rows g, g + 8, g, g + 8 of column t, the last two of t + 4; b[0..1] rows t and t + 4 of
// column g.
void tf32_all(simt::Lanes mine) {
  float a[16][8], b[8][8];
  for (unsigned i = 0; i < simt::kLanes; ++i) {
    const auto& m = *static_cast<const Product*>(mine[i]);
    const unsigned g = i / 4, t = i % 4;
    for (unsigned w = 0; w < 4; ++w) a[g + w % 2 * 8][t + w / 2 * 4] = from_tf32(m.a[w]);
    for (unsigned w = 0; w < 2; ++w) b[t + w * 4][g] = from_tf32(m.b[w]);
  }
  accumulate(mine, a, b);
}

}  // namespace

unsigned ballot(bool v, unsigned mask, const char* file, int line) {
  Vote mine{v, 0};
  simt::warp_collective({"ballot", file, line}, mask, &mine, vote_all);
  return mine.out;
}

void ldmatrix_x4(std::uint32_t (&r)[4], const void* p, const char* file, int line) {
  load<4, false>(r, p, {"ldmatrix_x4", file, line});
}
void ldmatrix_x2(std::uint32_t (&r)[2], const void* p, const char* file, int line) {
  load<2, false>(r, p, {"ldmatrix_x2", file, line});
}
void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* p, const char* file, int line) {
  load<4, true>(r, p, {"ldmatrix_x4_trans", file, line});
}
void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* p, const char* file, int line) {
  load<2, true>(r, p, {"ldmatrix_x2_trans", file, line});
}

void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* file,
              int line) {
  Product mine{d, a, b};
  simt::whole_warp({"mma_bf16", file, line}, &mine, bf16_all);
}
void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* file,
              int line) {
  Product mine{d, a, b};
  simt::whole_warp({"mma_tf32", file, line}, &mine, tf32_all);
}

// Adding half of the last bit kept rounds magnitudes to nearest, ties away from zero. Infinities and NaNs
// stay.
std::uint32_t to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (!std::isfinite(x)) return std::isnan(x) ? 0x7FFFFFFFu : bits;
  return (bits + 0x1000u) & 0xFFFFE000u;
}

namespace {

std::uint32_t to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return 0x7FFFu;
  return (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
}

}  // namespace

std::uint32_t pack_bf16(float lo, float hi) { return to_bf16(lo) | to_bf16(hi) << 16; }

}  // namespace hotloop::cuda
