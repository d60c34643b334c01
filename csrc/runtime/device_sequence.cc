// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_sequence.h"

#include <algorithm>

namespace hotloop {

DeviceSequence::DeviceSequence(const DeviceQueue& queue, std::vector<DeviceWork> work)
    : device_(queue.shared_device()), work_(std::move(work)) {
  LaunchOrder order;
  for (const DeviceWork& w : work_) after_.push_back(order.add(w.accesses));
  const DeviceApi& api = device_->api();
  device_->require_launches("launch");  // what went wrong before is not this capture's
  if (work_.empty() || api.capture_begin(queue.stream()) != kDeviceOk) return;
  const bool whole = capture(api, queue.stream());
  if (api.capture_end(queue.stream(), whole ? &graph_ : nullptr) != kDeviceOk) graph_ = nullptr;
  if (graph_ != nullptr) work_.clear();
}

DeviceSequence::~DeviceSequence() {
  if (graph_ != nullptr) (void)device_->api().graph_release(graph_);
}

bool DeviceSequence::capture(const DeviceApi& api, DeviceStream stream) const {
  // The nodes that each launch ended in; of one without work those that it waited for.
  std::vector<std::vector<DeviceNode>> tails(work_.size());
  std::vector<DeviceNode> nodes;
  for (std::size_t i = 0; i < work_.size(); ++i) {
    nodes.clear();
    for (const std::size_t j : after_[i]) nodes.insert(nodes.end(), tails[j].begin(), tails[j].end());
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    if (api.capture_after(stream, nodes.data(), nodes.size()) != kDeviceOk) return false;
    work_[i].launch(stream);
    constexpr std::size_t kMostNodes = 64;  // that one launch may end in
    tails[i].resize(std::max(nodes.size(), kMostNodes));
    std::size_t n = 0;
    if (api.capture_tail(stream, tails[i].data(), tails[i].size(), &n) != kDeviceOk) return false;
    tails[i].resize(n);
  }
  return api.launch_status() == kDeviceOk;
}

void DeviceSequence::launch(const DeviceQueue& queue) const {
  if (graph_ != nullptr)
    return device_->require(device_->api().graph_launch(graph_, queue.stream()), "launch a graph");
  for (const DeviceWork& w : work_) w.launch(queue.stream());
  device_->require_launches("launch");
}

}  // namespace hotloop
