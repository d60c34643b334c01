// SPDX-License-Identifier: Apache-2.0
// What the chain kernel does beside products: the element-wise end of every instruction, and what works along
// a row: losses and norms. Formulas are those of args.h.
#pragma once

#include <math.h>

#include "cuda/reduce.h"
#include "kernels/chain_tile_cuda.h"
#include "kernels/loss.h"
#include "kernels/matmul_epilogue_cuda.h"

namespace hotloop::cuda {

// Elements e ... e + 3 of the batch, dropped or scaled. They take 64 bits of the stream, which may begin at
// any half-word and go on in the next Philox block.
HL_DEVICE Float4 drop_quad(const DropoutMask& mask, Float4 v, int64 e) {
  const std::uint64_t number = static_cast<std::uint64_t>(e) / kPhiloxElements;
  const int at = static_cast<int>(e % kPhiloxElements);
  const auto pair = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  const PhiloxBlock block = mask.block(number);
  const std::uint64_t front = pair(block.word[0], block.word[1]), back = pair(block.word[2], block.word[3]);
  std::uint64_t bits = at < 4 ? front : back;
  if (at % 4 != 0) {
    std::uint64_t next = back;
    if (at > 4) {
      const PhiloxBlock following = mask.block(number + 1);
      next = pair(following.word[0], following.word[1]);
    }
    bits = bits >> (16 * (at % 4)) | next << (64 - 16 * (at % 4));
  }
  const auto one = [&](float x, int i) {
    return (bits >> (16 * i) & 0xFFFFu) < mask.threshold ? 0.0f : x * mask.scale;
  };
  return {one(v.x, 0), one(v.y, 1), one(v.z, 2), one(v.w, 3)};
}

HL_DEVICE Float4 add(Float4 a, Float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }

// out = dropout(f(alpha in + bias)) + residual, or with a gate dropout(alpha in + bias) f'(gate) + residual
HL_DEVICE void finish_elements(const ChainTile& t, const ChainInstruction& s, const DeviceStep* step) {
  const int n = s.columns, across = round_up(n, t.program.granule) / 4;
  const DropoutMask mask(step, s.dropout);
  ChainOperand sums = s.in;
  if (s.kind == ChainKind::kProduct) sums = {nullptr, 0, s.out.place};
  const ChainView in(t, sums, n), gate(t, s.other, n), residual(t, s.residual, n);
  const ChainSink out(t, s.out, n), saved(t, s.saved, n);
  const bool keep_argument = reads_input(s.function);
  for (int q = static_cast<int>(threadIdx.x); q < t.program.tile * across; q += kChainThreads) {
    const int row = q / across, column = 4 * (q % across), left = n - column;
    Float4 v{0.0f, 0.0f, 0.0f, 0.0f};
    if (left > 0) {
      v = in.quad(row, column);
      v = {s.alpha * v.x, s.alpha * v.y, s.alpha * v.z, s.alpha * v.w};
      if (s.vector != nullptr) {
        const float* const bias = s.vector + column;
        v = add(v,
                {bias[0], left > 1 ? bias[1] : 0.0f, left > 2 ? bias[2] : 0.0f, left > 3 ? bias[3] : 0.0f});
      }
      if (!gate) {
        if (saved && keep_argument) saved.quad(row, column, v);
        if (s.function >= 0) v = activate(s.function, v, s.p0, s.p1);
        if (saved && !keep_argument) saved.quad(row, column, v);
      }
      if (!mask.identity()) v = drop_quad(mask, v, (t.first + row) * n + column);
      if (gate && s.function >= 0) v = activate_grad(s.function, gate.quad(row, column), v, s.p0, s.p1);
      if (residual) v = add(v, residual.quad(row, column));
    } else if (saved) {
      saved.quad(row, column, v);
    }
    out.quad(row, column, v);
  }
}

// Rows of the tile, each by a group of as many neighbouring lanes as it has columns (a power of two, at most
// a warp): body(row, lane in group, lanes of a group, is there such a row). All lanes of a warp come along.
template <class Body>
HL_DEVICE void for_rows(const ChainTile& t, int columns, Body body) {
  int lanes = 1;
  while (lanes < columns && lanes < kWarp) lanes *= 2;
  const int rows = kWarp / lanes;  // of a warp at a time
  for (int begin = warp_id() * rows; begin < t.program.tile; begin += kChainThreads / kWarp * rows) {
    const int row = begin + lane_id() / lanes;
    body(row, lane_id() % lanes, lanes, row < t.valid);
  }
}

HL_DEVICE float sum_of(float v, int lanes) { return warp_reduce(v, Sum{}, lanes); }

// Zeros between the columns and the granule, which the next product reads.
HL_DEVICE void clear_margin(const ChainTile& t, const ChainOperand& o, int columns) {
  if (o.place < 0) return;
  const int wide = round_up(columns, t.program.granule) - columns,
            stride = padded(columns, t.program.granule);
  for (int i = static_cast<int>(threadIdx.x); i < t.program.tile * wide; i += kChainThreads)
    t.shared[o.place + i / wide * stride + columns + i % wide] = 0.0f;
}

HL_DEVICE float exp_of(float x) { return exp(Vec<float>(x)).v; }

// row_loss = sum q (max - x) + sum q * log(sum exp(x - max));  dlogits = drow (softmax sum q - q)
HL_DEVICE void cross_entropy_rows(const ChainTile& t, const ChainInstruction& s) {
  const int n = s.columns;
  const ChainView x(t, s.in, n), probs(t, s.other, n);
  const ChainSink d(t, s.out, n);
  const float even = s.p0 / static_cast<float>(n), keep = 1.0f - s.p0;
  for_rows(t, n, [&](int row, int lane, int lanes, bool there) {
    const int last = there ? n : 0;
    float top = -INFINITY;
    for (int c = lane; c < last; c += lanes) top = x(row, c) > top ? x(row, c) : top;
    top = warp_reduce(top, Max{}, lanes);
    const index label = there && s.labels != nullptr ? s.labels[t.first + row] : -1;
    const bool wrong = s.labels != nullptr && (label < 0 || label >= n);  // refused at the border
    const auto q = [&](int c) {
      return s.labels != nullptr ? (c == label ? keep + even : even) : ::fmaf(keep, probs(row, c), even);
    };
    float sum = 0.0f, offset = 0.0f, mass = 0.0f;
    for (int c = lane; c < last; c += lanes) {
      sum += exp_of(x(row, c) - top);
      // A weight of 0 beside a logit of -inf counts nothing.
      offset += s.labels != nullptr && q(c) == 0.0f ? 0.0f : q(c) * (top - x(row, c));
      mass += q(c);
    }
    sum = sum_of(sum, lanes);
    offset = sum_of(offset, lanes);
    mass = s.labels != nullptr ? 1.0f : sum_of(mass, lanes);
    if (!there) return;
    const float drow = s.drow != nullptr ? s.drow[t.first + row] : 1.0f;
    if (d) {
      const float scale = mass / sum;
      for (int c = lane; c < n; c += lanes)
        d.put(row, c, wrong ? 0.0f : drow * (exp_of(x(row, c) - top) * scale - q(c)));
    }
    if (s.row_loss != nullptr && lane == 0)
      s.row_loss[t.first + row] = wrong ? NAN : ::fmaf(mass, log(Vec<float>(sum)).v, offset);
  });
  clear_margin(t, s.out, n);
}

// row_loss = mean over columns of l(pred, target);  dpred = drow / columns * l'
template <class F>
HL_DEVICE void loss_rows(const ChainTile& t, const ChainInstruction& s) {
  using V = Vec<float>;
  const int n = s.columns;
  const ChainView pred(t, s.in, n), target(t, s.other, n);
  const ChainSink d(t, s.out, n);
  for_rows(t, n, [&](int row, int lane, int lanes, bool there) {
    const float scale = there && s.drow != nullptr ? s.drow[t.first + row] / static_cast<float>(n)
                                                   : 1.0f / static_cast<float>(n);
    float sum = 0.0f;
    for (int c = lane; c < (there ? n : 0); c += lanes) {
      const float weight = s.vector != nullptr ? s.vector[c] : 1.0f;
      const LossTerm<float> l = F::eval(V(pred(row, c)), V(target(row, c)), V(weight), V(s.p0));
      if (d) d.put(row, c, l.slope.v * scale);
      sum += l.value.v;
    }
    sum = sum_of(sum, lanes);
    if (there && lane == 0 && s.row_loss != nullptr) s.row_loss[t.first + row] = sum / static_cast<float>(n);
  });
  clear_margin(t, s.out, n);
}

HL_DEVICE void loss_rows(const ChainTile& t, const ChainInstruction& s) {
  enum Loss : int {
#define HOTLOOP_LOSS(name, Functor) k_##name,
#include "kernels/loss.def"
#undef HOTLOOP_LOSS
  };
  switch (s.function) {
#define HOTLOOP_LOSS(name, Functor) \
  case k_##name:                    \
    return loss_rows<Functor>(t, s);
#include "kernels/loss.def"
#undef HOTLOOP_LOSS
  }
}

// y = (x - mean) rstd weight + bias, or without the mean; mean and variance in two passes, as on a CPU
HL_DEVICE void norm_rows(const ChainTile& t, const ChainInstruction& s) {
  const int n = s.columns;
  const float each = 1.0f / static_cast<float>(n);
  const ChainView x(t, s.in, n);
  const ChainSink y(t, s.out, n);
  for_rows(t, n, [&](int row, int lane, int lanes, bool there) {
    const int last = there ? n : 0;
    float mean = 0.0f, square = 0.0f;
    if (s.centred != 0) {
      for (int c = lane; c < last; c += lanes) mean += x(row, c);
      mean = sum_of(mean, lanes) * each;
    }
    for (int c = lane; c < last; c += lanes) square += (x(row, c) - mean) * (x(row, c) - mean);
    const float rstd = 1.0f / ::sqrtf(sum_of(square, lanes) * each + s.p0);
    for (int c = lane; c < last; c += lanes) {
      const float scaled = (x(row, c) - mean) * rstd * (s.vector != nullptr ? s.vector[c] : 1.0f);
      y.put(row, c, scaled + (s.shift != nullptr ? s.shift[c] : 0.0f));
    }
    if (!there || lane != 0) return;
    if (s.row_loss != nullptr) s.row_loss[t.first + row] = rstd;
    if (s.mean != nullptr) s.mean[t.first + row] = mean;
  });
  clear_margin(t, s.out, n);
}

// dx = rstd (g - mean(g) - h mean(g h)) + residual, g = dy weight, h = (x - mean) rstd; without the mean:
// rstd (g - h mean(g h)) + residual
HL_DEVICE void norm_grad_rows(const ChainTile& t, const ChainInstruction& s) {
  const int n = s.columns;
  const float each = 1.0f / static_cast<float>(n);
  const ChainView dy(t, s.in, n), x(t, s.other, n), residual(t, s.residual, n);
  const ChainSink dx(t, s.out, n);
  for_rows(t, n, [&](int row, int lane, int lanes, bool there) {
    const int last = there ? n : 0;
    const float rstd = there ? s.row_loss[t.first + row] : 0.0f;
    const float mean = there && s.centred != 0 ? s.mean[t.first + row] : 0.0f;
    const auto g = [&](int c) { return s.vector != nullptr ? dy(row, c) * s.vector[c] : dy(row, c); };
    const auto h = [&](int c) { return (x(row, c) - mean) * rstd; };
    float sum = 0.0f, product = 0.0f;
    for (int c = lane; c < last; c += lanes) {
      sum += g(c);
      product += g(c) * h(c);
    }
    sum = s.centred != 0 ? sum_of(sum, lanes) * each : 0.0f;
    product = sum_of(product, lanes) * each;
    for (int c = lane; c < last; c += lanes) {
      const float v = rstd * (g(c) - sum - h(c) * product);
      dx.put(row, c, residual ? v + residual(row, c) : v);
    }
  });
  clear_margin(t, s.out, n);
}

}  // namespace hotloop::cuda
