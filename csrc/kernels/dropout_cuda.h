// SPDX-License-Identifier: Apache-2.0
// Dropout on the device: the mask of kernels/dropout.h, element by element or eight at a time (one Philox
// block). Made again wherever it is needed, never stored.
#pragma once

#include "core/philox.h"
#include "kernels/kernel_cuda.h"

namespace hotloop::cuda {

constexpr int kPhiloxElements = 8;  // half-words of a block

struct DropoutMask {
  PhiloxKey key{};
  std::uint64_t step = 0;
  std::uint32_t threshold = 0;  // of 65536; 0: the identity
  float scale = 1.0f;           // 1 / keep rate

  // layer -1: none. Of a step's whole batch: rows begin at 0.
  HL_DEVICE DropoutMask(const DeviceStep* ctx, int64 layer) {
    if (layer < 0) return;
    threshold = static_cast<std::uint32_t>(ctx->dropout[layer] * 65536.0 + 0.5);
    if (threshold == 0) return;
    key = stream_key(ctx->seed, ctx->run, static_cast<std::uint32_t>(layer), hotloop::Stream::kDropout);
    step = ctx->step;
    if (threshold < 65536) scale = 65536.0f / static_cast<float>(65536 - threshold);
  }

  HL_DEVICE bool identity() const { return threshold == 0; }

  HL_DEVICE PhiloxBlock block(std::uint64_t number) const {
    return philox({{static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32),
                    static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32)}},
                  key);
  }
  // v scaled, or 0 even where v is inf or NaN. `e`: which of the block's half-words.
  HL_DEVICE float apply(float v, const PhiloxBlock& bits, int e) const {
    const std::uint32_t half = (bits.word[e / 2] >> (16 * (e % 2))) & 0xFFFFu;
    return half < threshold ? 0.0f : v * scale;
  }
  // One element by its number in the batch.
  HL_DEVICE float operator()(float v, int64 element) const {
    if (identity()) return v;
    return apply(v, block(static_cast<std::uint64_t>(element) / kPhiloxElements),
                 static_cast<int>(element % kPhiloxElements));
  }
};

}  // namespace hotloop::cuda
