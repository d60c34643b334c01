// SPDX-License-Identifier: Apache-2.0
// A plan's steps bound to addresses on a device for one number of rows, each with a workspace of its own, and
// the chains of steps that go as one launch. The counterpart of Binding.
#pragma once

#include <memory>
#include <vector>

#include "runtime/binding.h"
#include "runtime/device_library.h"

namespace hotloop {

// Steps [begin, end) of the plan as one launch.
struct DeviceCall {
  int64 begin = 0, end = 0;
  const std::vector<ChainStep>* chain = nullptr;  // null: one step
  std::size_t workspace = 0;                      // where its own begins
};

class DeviceBinding {
 public:
  // Throws DeviceFault where there is no room for the workspaces.
  DeviceBinding(const Plan& plan, const Places& places, std::shared_ptr<const Device> device,
                Precision precision, int64 rows);

  int64 rows() const { return rows_; }
  std::size_t n_bytes() const { return workspace_->bytes(); }

  // Steps [begin, end) in launches: chains, where they lie in it as a whole.
  std::vector<DeviceCall> calls(int64 begin, int64 end) const;
  void launch(const DeviceCall& call, DeviceStream stream, const DeviceStep* step) const;

 private:
  struct Args {
    alignas(8) std::byte bytes[kMaxArgsBytes];
  };
  struct Chain {
    DeviceCall call;
    std::vector<ChainStep> steps;
  };
  ChainStep chain_step(int64 number) const;
  void find_chains(const PlanStage& stage, std::size_t& workspace);
  std::uint32_t unread_outputs(int64 number, int64 begin, int64 end) const;
  bool is_read_outside(int buffer, int64 begin, int64 end) const;
  std::size_t take(std::size_t bytes, std::size_t& workspace) const;

  const Plan& plan_;
  std::shared_ptr<const Device> device_;
  Precision precision_;
  int64 rows_;
  std::vector<Args> args_;
  std::vector<std::vector<std::int64_t>> per_row_;  // of each step's fields; see ChainStep
  std::vector<std::size_t> workspaces_;             // where each step's own begins
  std::vector<std::unique_ptr<Chain>> chains_;      // in the order of their steps
  std::unique_ptr<DeviceBlock> workspace_;
};

}  // namespace hotloop
