// SPDX-License-Identifier: Apache-2.0
// A plan made ready to run on a device: an arena of its own, its steps bound for the row counts in use, and
// graphs of them. The counterpart of Program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/device_binding.h"
#include "runtime/device_sequence.h"
#include "runtime/memory.h"
#include "runtime/plan.h"

namespace hotloop {

// Batches of one size, one after another: what is captured as one graph.
struct DevicePass {
  int64 rows = 0;
  bool advances = false;                         // each begins with a step forward in the step block
  std::vector<int> inputs;                       // that are gathered then; none: they hold the batch
  std::vector<std::pair<int64, int64>> batches;  // steps [begin, end) of each
  bool operator==(const DevicePass&) const = default;
};

class DeviceProgram final : public Places {
 public:
  // Throws InternalError for an illegal plan, DeviceFault where there is no room.
  DeviceProgram(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory,
                std::shared_ptr<const Device> device, Precision precision);
  ~DeviceProgram() override;
  // The same plan on the same memory with an arena of its own.
  std::unique_ptr<DeviceProgram> twin() const {
    return std::make_unique<DeviceProgram>(plan_, memory_, device_, precision_);
  }

  const Plan& plan() const { return *plan_; }
  Memory& memory() const { return *memory_; }
  const std::shared_ptr<const Device>& device() const { return device_; }
  const DeviceQueue& queue() const { return queue_; }
  std::string isa() const;
  std::size_t n_bytes() const;  // on the device: arena, constants, step block, tables and workspaces
  // On the host: go to the device before a run and come back after it.
  double* metrics() { return metrics_.data(); }

  std::byte* address(int buffer) const override;
  // The first bytes of a buffer.
  void put(int buffer, const std::byte* data, std::size_t bytes);
  void get(int buffer, std::byte* out, std::size_t bytes) const;

  // Runs steps [begin, end) on what the inputs hold, `times` over with a step number one higher each time;
  // those of the prepare section only if what they made is out of date. `params`: params_width() numbers.
  // seed, run, step, first and last are taken from `like`.
  void run(int64 rows, int64 begin, int64 end, const DeviceStep& like, const double* params, int64 times);

  // --- parts of a pass, for device_epoch.cc; within a DeviceRun
  // Brings the step block, the step parameters (n_params rows) and the metrics to the device.
  void start(DeviceStep step, const double* params, int64 n_params);
  void launch(const DevicePass& pass);
  // Waits; brings the metrics back, and the step block.
  DeviceStep finish();
  // On the device.
  DeviceStep* step() const;
  std::byte* metrics_address() const { return head_.data() + metrics_at_; }
  // Where steps [begin, end) begin, which are about to be launched first; and when they have been run.
  int64 begin_steps(int64 begin, int64 end);
  void end_steps(int64 begin, int64 end);
  // The launches that steps [begin, end) go in.
  std::vector<DeviceCall> calls(int64 rows, int64 begin, int64 end);
  double batch_seconds = -1.0;  // of a whole batch; negative: not known yet
  bool is_warm = false;         // a pass has launched something
  // Ways back to the host for what comes with every launch: two, so that the device never waits for the host.
  struct Lane {
    Lane(const std::shared_ptr<const Device>& device, std::size_t bytes)
        : pinned(device, bytes), done(device) {}
    PinnedBlock pinned;
    DeviceMark done;
  };
  static constexpr int kLanes = 2;
  Lane& lane(int i, std::size_t bytes);  // as it is, or with more room; not in use

  // For each launch of a pass the earlier ones that it waits for.
  std::vector<std::vector<std::size_t>> order(const DevicePass& pass);

 private:
  friend class DeviceRun;
  struct Bound;
  Bound& bound(int64 rows);
  bool prepares(int64 begin, int64 end) const;
  const DeviceSequence& sequence(const DevicePass& pass);
  std::vector<DeviceWork> work(const DeviceBinding& binding, const DevicePass& pass) const;

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<Memory> memory_;
  std::shared_ptr<const Device> device_;
  Precision precision_;
  SpaceSet used_, written_;
  DeviceQueue queue_;
  DeviceBlock arena_, constants_;
  // Step block | one row of step parameters | metrics: one copy in either direction.
  std::size_t params_at_, metrics_at_;
  DeviceBlock head_;
  PinnedBlock head_host_;
  std::unique_ptr<DeviceBlock> params_;  // a table for a pass, as large as the largest so far
  std::vector<double> metrics_;
  std::unique_ptr<PinnedBlock> staging_;  // what was put since the last wait
  std::size_t staged_ = 0;
  std::unique_ptr<Lane> lanes_[kLanes];
  // The memory's version at the last run of the prepare section, and at the last run.
  std::uint64_t prepared_at_ = ~std::uint64_t{0}, launched_at_ = 0;
  // The full batch, the last one, and what a caller's own sizes need.
  static constexpr int kMaxBindings = 4;
  std::unique_ptr<Bound> bindings_[kMaxBindings];
  int oldest_ = 0;
};

// Held while a program runs: nobody else may run on its memory, whose spaces are current on the device.
class DeviceRun {
 public:
  explicit DeviceRun(DeviceProgram& program);
  // Without finish() the run failed: waits for what was launched.
  ~DeviceRun();
  DeviceRun(const DeviceRun&) = delete;
  DeviceRun& operator=(const DeviceRun&) = delete;
  void finish();  // brings what is lent back to the host

 private:
  DeviceProgram& program_;
  Memory::Lease lease_;
  bool finished_ = false;
};

}  // namespace hotloop
