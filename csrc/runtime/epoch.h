// SPDX-License-Identifier: Apache-2.0
// One pass over the data: order, gather, steps, statistics. Training, evaluation and prediction are this
// same loop over different programs.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <vector>

#include "runtime/program.h"
#include "runtime/source.h"

namespace hotloop {

// Rows of an output buffer go here, batch after batch.
struct EpochOutput {
  int buffer = -1;
  std::byte* data = nullptr;
  bool on_device = false;  // data is an address there
};

struct EpochOptions {
  static constexpr std::chrono::milliseconds kPollEvery{50};

  std::vector<int> inputs;  // the plan's buffer of each source array
  std::vector<EpochOutput> outputs;
  int64 batch_size = 1;
  bool shuffle = false;
  std::uint64_t seed = 0;
  std::uint32_t run = 0, epoch = 0;
  std::uint64_t step = 0;  // of the epoch's first batch
  // The source may be a piece of the epoch only: batches that ran before it, and whether more come after.
  // Pieces hold whole batches, but for the last one; shuffling is within a piece.
  int64 before = 0;
  bool more = false;
  int64 first_batch = 0;  // where to begin; metrics go on from there
  int64 batches = -1;     // at most so many; negative: to the end of the epoch
  const double* params =
      nullptr;                // (n_params, params_width): one row per step of the epoch, pieces before too
  int64 n_params = 0;         // 1: the same row for every step
  int64 begin = 0, end = 0;   // steps of the plan
  int64 accumulate = 1;       // batches that share an update; the epoch's last ones may be fewer
  double deadline_s = -1.0;   // seconds from the call; negative: none
  bool adaptive = false;      // nobody asked for this team: it has to save a third of the time
  bool check_finite = false;  // end at the first batch whose loss totals are not finite
  const std::atomic<bool>* stop = nullptr;
  // Called every kPollEvery; true ends the epoch after the step in hand.
  std::function<bool()> poll;
};

enum class EpochStatus { kDone, kStopped, kTime, kDiverged, kPaused };

struct EpochResult {
  int64 steps = 0;  // batches that were run in this call, whole ones always
  EpochStatus status = EpochStatus::kDone;
};

// The batches of a source. Throws InternalError for everything that can be wrong between it and a plan.
int64 check_source(const Plan& plan, const std::vector<SourceArray>& source, const EpochOptions& options);

// Throws InternalError where the source does not fit the program. Metrics are zeroed first, unless it
// begins in mid-epoch: then they hold the totals so far.
EpochResult run_epoch(Program& program, const std::vector<SourceArray>& source, ThreadTeam& team,
                      const EpochOptions& options);

}  // namespace hotloop
