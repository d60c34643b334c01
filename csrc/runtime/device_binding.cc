// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_binding.h"

#include <algorithm>

namespace hotloop {
namespace {

constexpr std::size_t kWorkspaceAlign = 256;
// Steps that are tried as one launch: more than the longest chain that there is a kernel for, and few enough
// that trying every run of them costs nothing beside a launch.
constexpr int64 kLongestChain = 32;

}  // namespace

DeviceBinding::DeviceBinding(const Plan& plan, const Places& places, std::shared_ptr<const Device> device,
                             Precision precision, int64 rows)
    : plan_(plan), device_(std::move(device)), precision_(precision), rows_(rows) {
  const DeviceApi& api = device_->api();
  std::size_t workspace = 0;
  args_.resize(plan.steps.size());
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const PlanStep& step = plan.steps[i];
    bind_args(plan, step, places, 0, rows, args_[i].bytes);
    const DeviceKernel& kernel = api.kernels[static_cast<int>(step.kernel)];
    workspaces_.push_back(take(kernel.workspace(args_[i].bytes, device_->traits(), precision), workspace));
    std::vector<std::int64_t>& moves = per_row_.emplace_back();
    const auto fields = kernel_info(step.kernel).fields;
    for (std::size_t f = 0; f < fields.size(); ++f) {
      const FieldValue& value = step.fields[f];
      const bool operand = is_operand(fields[f].kind) && value.buffer >= 0;
      moves.push_back(operand ? plan.buffers[static_cast<std::size_t>(value.buffer)].size.per_row
                      : fields[f].kind == FieldKind::Dim ? value.dim.per_row
                                                         : 0);
    }
  }
  for (const PlanStage& stage : plan.stages)
    if (stage.rows && rows > 0) find_chains(stage, workspace);
  workspace_ = std::make_unique<DeviceBlock>(device_, workspace);
}

// Room for the counters even where a kernel asks for nothing more: 4 KB a step is little.
std::size_t DeviceBinding::take(std::size_t bytes, std::size_t& workspace) const {
  const std::size_t at = workspace;
  workspace += (kWorkspaceCounters + bytes + kWorkspaceAlign - 1) / kWorkspaceAlign * kWorkspaceAlign;
  return at;
}

ChainStep DeviceBinding::chain_step(int64 number) const {
  const auto i = static_cast<std::size_t>(number);
  return {static_cast<int>(plan_.steps[i].kernel), args_[i].bytes, per_row_[i].data()};
}

// From each step on the longest run that fits.
void DeviceBinding::find_chains(const PlanStage& stage, std::size_t& workspace) {
  const DeviceApi& api = device_->api();
  std::vector<ChainStep> steps;
  for (int64 i = stage.begin; i < stage.end; ++i) steps.push_back(chain_step(i));
  for (int64 begin = stage.begin; begin + 1 < stage.end;) {
    const ChainStep* first = steps.data() + (begin - stage.begin);
    const auto fits = [&](int64 n) {
      return api.chain_fits(first, static_cast<std::size_t>(n), rows_, device_->traits(), precision_) != 0;
    };
    int64 n = std::min(stage.end - begin, kLongestChain);
    while (n > 1 && !fits(n)) --n;
    if (n > 1) {
      auto chain = std::make_unique<Chain>();
      chain->steps.assign(first, first + n);
      for (int64 i = 0; i < n; ++i)
        chain->steps[static_cast<std::size_t>(i)].unread = unread_outputs(begin + i, begin, begin + n);
      const std::size_t bytes =
          api.chain_workspace(first, static_cast<std::size_t>(n), rows_, device_->traits(), precision_);
      chain->call = {begin, begin + n, &chain->steps, take(bytes, workspace)};
      chains_.push_back(std::move(chain));
    }
    begin += n;
  }
}

// Outputs of step `number` that nobody reads but steps [begin, end).
std::uint32_t DeviceBinding::unread_outputs(int64 number, int64 begin, int64 end) const {
  const PlanStep& step = plan_.steps[static_cast<std::size_t>(number)];
  const auto fields = kernel_info(step.kernel).fields;
  std::uint32_t found = 0;
  for (std::size_t f = 0; f < fields.size(); ++f) {
    const int buffer = step.fields[f].buffer;
    if (!is_written(fields[f].kind) || buffer < 0) continue;
    const bool ours = plan_.buffers[static_cast<std::size_t>(buffer)].space == Space::kArena;
    if (ours && plan_.knows_outputs && !is_read_outside(buffer, begin, end)) found |= 1u << f;
  }
  return found;
}

// A buffer of the arena, by its number: others that get its bytes later are written before they are read.
bool DeviceBinding::is_read_outside(int buffer, int64 begin, int64 end) const {
  if (std::find(plan_.outputs.begin(), plan_.outputs.end(), buffer) != plan_.outputs.end()) return true;
  for (int64 i = 0; i < static_cast<int64>(plan_.steps.size()); ++i) {
    if (begin <= i && i < end) continue;
    for (const FieldValue& value : plan_.steps[static_cast<std::size_t>(i)].fields)
      if (value.buffer == buffer) return true;
  }
  return false;
}

std::vector<DeviceCall> DeviceBinding::calls(int64 begin, int64 end) const {
  std::vector<DeviceCall> found;
  auto chain = chains_.begin();
  for (int64 i = begin; i < end;) {
    while (chain != chains_.end() && (*chain)->call.begin < i) ++chain;
    if (chain != chains_.end() && (*chain)->call.begin == i && (*chain)->call.end <= end)
      found.push_back((*chain)->call);
    else
      found.push_back({i, i + 1, nullptr, workspaces_[static_cast<std::size_t>(i)]});
    i = found.back().end;
  }
  return found;
}

void DeviceBinding::launch(const DeviceCall& call, DeviceStream stream, const DeviceStep* step) const {
  const DeviceApi& api = device_->api();
  const Launch how{stream, step, workspace_->data() + call.workspace, &device_->traits(), precision_};
  if (call.chain != nullptr) return api.chain_launch(call.chain->data(), call.chain->size(), rows_, how);
  const auto i = static_cast<std::size_t>(call.begin);
  api.kernels[static_cast<int>(plan_.steps[i].kernel)].launch(args_[i].bytes, how);
}

}  // namespace hotloop
