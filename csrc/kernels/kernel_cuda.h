// SPDX-License-Identifier: Apache-2.0
// What a CUDA kernel is. For each line of kernels.def a file <family>_cuda.cu defines
//
//   void NAME_launch(const Args<float>&, const Launch&)    host code: picks grid and variant from the shapes,
//   and
//                                                          launches; nothing for empty work
//
// and for argument structs whose launches need memory of their own an overload of workspace_bytes below.
// Pointers in args are of the device; operands overlap as args.h allows. Launches are captured in graphs, so
// a launcher may not wait, allocate or read the device. Results are the same bits in every run on one device.
#pragma once

#include "cuda/api.h"
#include "cuda/device_step.h"
#include "cuda/portable.h"
#include "kernels/args.h"

#define HOTLOOP_ISA cuda

namespace hotloop::cuda {

inline Stream stream_of(const Launch& launch) { return static_cast<Stream>(launch.stream); }

// Threads of a block of element-wise work: 8 warps, of which 8 blocks fill a multiprocessor.
constexpr int kThreads = 256;
// Blocks of a loop over the grid: as many as run at once.
inline unsigned grid_for(int64 work, const Launch& launch, int64 per_block = kThreads) {
  const int64 most = int64{launch.traits->multiprocessors} * 8, wanted = ceil_div(work, per_block);
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

#define HOTLOOP_KERNEL(name, Args) void name##_launch(const Args<float>&, const Launch&);
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL

// Bytes that a launch needs beside its operands; see Launch.
template <class Args>
std::size_t workspace_bytes(const Args&, const DeviceTraits&, Precision) {
  return 0;
}
std::size_t workspace_bytes(const MatmulArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const MatmulPartsArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const ReduceSumArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const ReduceMaxFwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const LayerNormParamBwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const RmsNormParamBwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const BatchNormFwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const BatchNormBwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const EmbeddingBwdArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const RowWeightArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const LossStatsArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const AccuracyArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const TopKAccuracyArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const BinaryAccuracyArgs<float>&, const DeviceTraits&, Precision);
std::size_t workspace_bytes(const RegressionStatsArgs<float>&, const DeviceTraits&, Precision);

}  // namespace hotloop::cuda
