// SPDX-License-Identifier: Apache-2.0
// What varies by step, in device memory: kernels read it there because their launches are captured in graphs
// and replayed. The counterpart of StepContext. The host writes one at the start of a pass; the service
// `advance` moves it on to the next batch.
#pragma once

#include <cstdint>

#include "core/shuffle.h"
#include "core/types.h"

namespace hotloop {

// Elements of a source array, as in runtime/source.h.
enum class FeedType : std::int32_t { kUint8, kInt32, kInt64, kFloat32, kFloat64 };

// Rows of one array, and the plan's input that they go to.
struct DeviceFeed {
  const void* data = nullptr;             // (rows, width), device
  const std::int64_t* numbers = nullptr;  // of the rows, device; null: as they lie
  void* out = nullptr;                    // (batch, width) of float, or of index
  int64 width = 0;
  FeedType type = FeedType::kFloat32;
  std::int32_t to_index = 0;  // out holds indices
};
constexpr int kMaxFeeds = 16;

// What gather reads: the rows of the epoch's order from position `first` on, all of them if it is 0.
struct DeviceFeeds {
  int64 first = 0;
  DeviceFeed at[kMaxFeeds];
  std::int32_t n = 0;
};

struct DeviceStep {
  // --- as StepContext; kernels of the list read these
  std::uint64_t seed = 0;
  std::uint64_t step = 0;           // optimiser steps since the run began
  const double* groups = nullptr;   // (groups, 2): lr, weight_decay
  const double* dropout = nullptr;  // (layers): drop probability
  std::uint32_t run = 0;
  std::int32_t first = 1, last = 1;  // whether the batch is the first, the last of those that share an update

  // --- of the pass; advance and gather read these
  std::int32_t shuffle = 0, more = 0;  // more: others follow this piece
  int64 place = -1;                    // batches of the epoch begun, minus 1; pieces before are counted
  int64 before = 0;                    // of them, those of pieces before
  int64 batches = 0;                   // of this piece
  int64 batch_size = 0, rows = 0;      // rows: of this piece
  std::uint64_t first_step = 0;        // step of the epoch's first batch
  int64 accumulate = 1;
  const double* params = nullptr;        // (n, params_width) on the device
  int64 params_width = 0, n_params = 0;  // n = 1: the same row for every step
  int64 groups_width = 0;                // doubles of a row before the drop probabilities
  const double* totals = nullptr;        // the first two doubles of the metric block, or null
  int64 diverged_at = -1;                // place of the first batch after which a total was not finite
  Feistel network;                       // the order of the epoch, if shuffle
  DeviceFeeds feeds;
};

}  // namespace hotloop
