// SPDX-License-Identifier: Apache-2.0
// The kernel list's column of launchers.
#include "kernels/kernel_cuda.h"
#include "kernels/launchers.h"

namespace hotloop::cuda {
namespace {

template <class Args>
std::size_t erased_workspace(const void* args, const DeviceTraits& traits, Precision precision) {
  return workspace_bytes(*static_cast<const Args*>(args), traits, precision);
}

template <class Args, void (*launcher)(const Args&, const Launch&)>
void erased_launch(const void* args, const Launch& launch) {
  launcher(*static_cast<const Args*>(args), launch);
}

constexpr DeviceKernel kTable[] = {
#define HOTLOOP_KERNEL(name, Args) \
  {&erased_workspace<Args<float>>, &erased_launch<Args<float>, name##_launch>},
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
};

}  // namespace

const DeviceKernel* launchers() { return kTable; }
std::uint32_t n_launchers() { return static_cast<std::uint32_t>(sizeof(kTable) / sizeof(kTable[0])); }

}  // namespace hotloop::cuda
