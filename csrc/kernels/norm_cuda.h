// SPDX-License-Identifier: Apache-2.0
// The gradient of a row through LayerNorm or RMSNorm, by a team: for the kernel that does only that, and for
// the one that makes the parameters' gradients too.
#pragma once

#include "kernels/rows_cuda.h"

namespace hotloop::cuda {

// g = dy * weight, hat = (x - mean) * rstd;  dx = residual + rstd * (g - mean(g) - hat * mean(g * hat))
// kRms: mean is 0, and so is mean(g) in its place.
template <bool kRms, bool kWide, int kGroups>
HL_DEVICE void norm_bwd_rows(const LayerNormBwdArgs<float>& a, int64 block, int lanes, bool quads,
                             float* scratch) {
  Team<kWide> team(block, a.rows, lanes, scratch);
  const Span<kGroups> span(team, a.cols, quads);
  const int64 begin = team.row * a.cols;
  const float mean = kRms ? 0.0f : a.mean[team.row], rstd = a.rstd[team.row];
  Row<kGroups> dy(span, a.dy + begin, 0.0f);
  const Row<kGroups> x(span, a.x + begin, 0.0f);
  const Row<kEarlyGroups<kGroups>> weight(span, a.weight, 1.0f),
      residual(span, a.residual == nullptr ? nullptr : a.residual + begin, 0.0f);
  float sums[2] = {};  // of g * hat, of g
  span.each([&](auto group) {
    float g[4], v[4], by[4];
    dy.get(span, group, g);
    x.get(span, group, v);
    weight.get(span, group, by);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      g[j] *= by[j];
      sums[0] += span.has(group, j) ? g[j] * ((v[j] - mean) * rstd) : 0.0f;
      sums[1] += g[j];
    }
    if constexpr (kGroups > 0) dy.keep(group, g);  // g in its place
  });
  team.reduce(sums, Sum{});
  const float cols = static_cast<float>(a.cols);
  const float mean_gh = sums[0] / cols, mean_g = kRms ? 0.0f : sums[1] / cols;
  if (!team.live) return;
  write_row(span, dy, a.dx + begin, [&](auto group, float (&g)[4]) {
    float v[4], rest[4];
    x.get(span, group, v);
    if constexpr (kGroups == 0) {
      float by[4];
      weight.get(span, group, by);
      HL_UNROLL
      for (int j = 0; j < 4; ++j) g[j] *= by[j];
    }
    residual.get(span, group, rest);
    HL_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float hat = (v[j] - mean) * rstd;
      g[j] = ::fmaf(rstd, ::fmaf(-hat, mean_gh, g[j] - mean_g), rest[j]);
    }
  });
}

inline bool norm_bwd_in_quads(const LayerNormBwdArgs<float>& a) {
  return in_quads(a.cols, a.dx, a.dy, a.x, a.weight, a.residual);
}

}  // namespace hotloop::cuda
