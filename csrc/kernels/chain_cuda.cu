// SPDX-License-Identifier: Apache-2.0
// Chains in one launch.
#include "kernels/kernel_cuda.h"
#include "kernels/launchers.h"

namespace hotloop::cuda {

int chain_fits(const ChainStep*, std::size_t, std::int64_t, const DeviceTraits&, Precision) { return 0; }
std::size_t chain_workspace(const ChainStep*, std::size_t, std::int64_t, const DeviceTraits&, Precision) {
  return 0;
}
void chain_launch(const ChainStep*, std::size_t, std::int64_t, const Launch&) {}

}  // namespace hotloop::cuda
