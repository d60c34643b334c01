// SPDX-License-Identifier: Apache-2.0
// Launches captured once in a graph and replayed: a launch from the host costs microseconds, as much as many
// kernels of a small network take. In the graph each waits only for those that it depends on.
#pragma once

#include <functional>
#include <vector>

#include "runtime/device_library.h"
#include "runtime/device_order.h"

namespace hotloop {

struct DeviceWork {
  Accesses accesses;
  std::function<void(DeviceStream)> launch;
};

class DeviceSequence {
 public:
  // `queue`: nothing may be launched on it meanwhile. Where the device cannot capture, the launches are run
  // one after another instead.
  DeviceSequence(const DeviceQueue& queue, std::vector<DeviceWork> work);
  ~DeviceSequence();
  DeviceSequence(const DeviceSequence&) = delete;
  DeviceSequence& operator=(const DeviceSequence&) = delete;

  void launch(const DeviceQueue& queue) const;
  bool is_graph() const { return graph_ != nullptr; }
  // For each launch the earlier ones that it waits for.
  const std::vector<std::vector<std::size_t>>& after() const { return after_; }

 private:
  bool capture(const DeviceApi& api, DeviceStream stream) const;

  std::shared_ptr<const Device> device_;
  std::vector<DeviceWork> work_;  // without a graph
  std::vector<std::vector<std::size_t>> after_;
  DeviceGraph graph_ = nullptr;
};

}  // namespace hotloop
