// SPDX-License-Identifier: Apache-2.0
// The device table over the CUDA runtime, which is linked statically and finds the driver by itself, at the
// first call: without a driver everything here answers kNoDriver.
#include <cuda_runtime.h>

#include <cstdio>

#include "cuda/portable.h"
#include "kernels/launchers.h"

namespace hotloop::cuda {
namespace {

thread_local char t_error[512] = "";

int status_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return kDeviceOk;
    case cudaErrorInsufficientDriver:
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorCompatNotSupportedOnDevice:
      return kDriverTooOld;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
      return kNoDevice;
    case cudaErrorMemoryAllocation:
      return kDeviceMemory;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidResourceHandle:
      return kDeviceMisuse;
    case cudaErrorStubLibrary:
    case cudaErrorSharedObjectInitFailed:
    case cudaErrorSharedObjectSymbolNotFound:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
      return kNoDriver;
    default:
      return kDeviceFault;
  }
}

int report(cudaError_t error) {
  if (error == cudaSuccess) return kDeviceOk;
  std::snprintf(t_error, sizeof t_error, "%s: %s", cudaGetErrorName(error), cudaGetErrorString(error));
  (void)cudaGetLastError();  // errors that are not lasting end here
  return status_of(error);
}

const char* last_error() { return t_error; }

int versions(int* driver, int* built_for) {
  *built_for = CUDART_VERSION;
  *driver = 0;
  return report(cudaDriverGetVersion(driver));
}

int count(int* devices) {
  *devices = 0;
  return report(cudaGetDeviceCount(devices));
}

HL_KERNEL probe() {}

int open(int number, DeviceTraits* traits) {
  if (const int status = report(cudaSetDevice(number))) return status;
  if (const int status = report(cudaFree(nullptr))) return status;  // makes the context
  cudaDeviceProp found{};
  if (const int status = report(cudaGetDeviceProperties(&found, number))) return status;
  cudaFuncAttributes code{};
  if (const int status = report(cudaFuncGetAttributes(&code, reinterpret_cast<const void*>(probe))))
    return status;
  std::snprintf(traits->name, sizeof traits->name, "%s", found.name);
  traits->number = number;
  traits->arch = found.major * 10 + found.minor;
  traits->multiprocessors = found.multiProcessorCount;
  traits->shared_per_block = found.sharedMemPerBlockOptin;
  traits->memory = found.totalGlobalMem;
  traits->l2 = static_cast<std::size_t>(found.l2CacheSize);
  traits->has_mma = found.major >= 8 && code.ptxVersion >= 80;
  return kDeviceOk;
}

int use(int number) { return report(cudaSetDevice(number)); }
int memory_info(std::size_t* free, std::size_t* total) { return report(cudaMemGetInfo(free, total)); }

int allocate(std::size_t bytes, void** address) { return report(cudaMalloc(address, bytes)); }
int release(void* address) { return report(cudaFree(address)); }
int allocate_pinned(std::size_t bytes, void** address) { return report(cudaMallocHost(address, bytes)); }
int release_pinned(void* address) { return report(cudaFreeHost(address)); }

Stream native(DeviceStream stream) { return static_cast<Stream>(stream); }

int copy(void* to, const void* from, std::size_t bytes, CopyKind kind, DeviceStream stream) {
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                       cudaMemcpyDeviceToDevice};
  return report(cudaMemcpyAsync(to, from, bytes, kKinds[static_cast<int>(kind)], native(stream)));
}
int fill(void* at, int byte, std::size_t bytes, DeviceStream stream) {
  return report(cudaMemsetAsync(at, byte, bytes, native(stream)));
}

int stream_create(DeviceStream* stream) {
  return report(cudaStreamCreateWithFlags(reinterpret_cast<Stream*>(stream), cudaStreamNonBlocking));
}
int stream_release(DeviceStream stream) { return report(cudaStreamDestroy(native(stream))); }
int stream_wait(DeviceStream stream) { return report(cudaStreamSynchronize(native(stream))); }

cudaEvent_t event_of(DeviceEvent event) { return static_cast<cudaEvent_t>(event); }
int event_create(DeviceEvent* event) {
  return report(cudaEventCreate(reinterpret_cast<cudaEvent_t*>(event)));
}
int event_release(DeviceEvent event) { return report(cudaEventDestroy(event_of(event))); }
int event_record(DeviceEvent event, DeviceStream stream) {
  return report(cudaEventRecord(event_of(event), native(stream)));
}
int event_wait(DeviceEvent event) { return report(cudaEventSynchronize(event_of(event))); }
int event_done(DeviceEvent event, int* done) {
  const cudaError_t error = cudaEventQuery(event_of(event));
  *done = error == cudaSuccess;
  return error == cudaErrorNotReady ? kDeviceOk : report(error);
}
int stream_wait_event(DeviceStream stream, DeviceEvent event) {
  return report(cudaStreamWaitEvent(native(stream), event_of(event), 0));
}
int event_seconds(DeviceEvent begin, DeviceEvent end, double* seconds) {
  float milliseconds = 0.0f;
  const int status = report(cudaEventElapsedTime(&milliseconds, event_of(begin), event_of(end)));
  *seconds = 1e-3 * static_cast<double>(milliseconds);
  return status;
}

// Relaxed: code that is launched for the first time is loaded then, which other modes may take for an unsafe
// call. A launcher neither waits nor allocates, so there is nothing else for them to refuse.
int capture_begin(DeviceStream stream) {
  return report(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeRelaxed));
}

int capture_after(DeviceStream stream, const DeviceNode* nodes, std::size_t n) {
  auto* found = reinterpret_cast<cudaGraphNode_t*>(const_cast<DeviceNode*>(nodes));
#if CUDART_VERSION >= 13000
  return report(cudaStreamUpdateCaptureDependencies(native(stream), found, nullptr, n,
                                                    cudaStreamSetCaptureDependencies));
#else
  return report(
      cudaStreamUpdateCaptureDependencies(native(stream), found, n, cudaStreamSetCaptureDependencies));
#endif
}

int capture_tail(DeviceStream stream, DeviceNode* nodes, std::size_t room, std::size_t* n) {
  cudaStreamCaptureStatus state{};
  const cudaGraphNode_t* found = nullptr;
#if CUDART_VERSION >= 13000
  const cudaError_t error =
      cudaStreamGetCaptureInfo(native(stream), &state, nullptr, nullptr, &found, nullptr, n);
#else
  const cudaError_t error = cudaStreamGetCaptureInfo_v2(native(stream), &state, nullptr, nullptr, &found, n);
#endif
  if (const int status = report(error)) return status;
  if (*n > room) return report(cudaErrorInvalidValue);
  for (std::size_t i = 0; i < *n; ++i) nodes[i] = found[i];
  return kDeviceOk;
}

int capture_end(DeviceStream stream, DeviceGraph* graph) {
  cudaGraph_t captured = nullptr;
  if (const int status = report(cudaStreamEndCapture(native(stream), &captured))) return status;
  int status = kDeviceOk;
  if (graph != nullptr) {
    cudaGraphExec_t ready = nullptr;
    status = report(cudaGraphInstantiate(&ready, captured, 0));
    *graph = ready;
  }
  (void)cudaGraphDestroy(captured);
  return status;
}

int graph_launch(DeviceGraph graph, DeviceStream stream) {
  return report(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), native(stream)));
}
int graph_release(DeviceGraph graph) {
  return report(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

int launch_status() { return report(cudaGetLastError()); }

}  // namespace
}  // namespace hotloop::cuda

extern "C" __attribute__((visibility("default"))) const hotloop::DeviceApi* hotloop_device_api(
    std::uint32_t version) {
  using namespace hotloop::cuda;
  static const hotloop::DeviceApi api = {hotloop::kDeviceApiVersion,
                                         n_launchers(),
                                         "cuda",
                                         last_error,
                                         versions,
                                         count,
                                         open,
                                         use,
                                         memory_info,
                                         allocate,
                                         release,
                                         allocate_pinned,
                                         release_pinned,
                                         copy,
                                         fill,
                                         stream_create,
                                         stream_release,
                                         stream_wait,
                                         event_create,
                                         event_release,
                                         event_record,
                                         event_wait,
                                         event_done,
                                         stream_wait_event,
                                         event_seconds,
                                         capture_begin,
                                         capture_after,
                                         capture_tail,
                                         capture_end,
                                         graph_launch,
                                         graph_release,
                                         launch_status,
                                         launchers(),
                                         chain_fits,
                                         chain_workspace,
                                         chain_launch,
                                         matmul_batch_workspace,
                                         matmul_batch_launch,
                                         update_list_launch,
                                         advance,
                                         gather,
                                         exchange,
                                         find_not_finite,
                                         find_outside};
  return version == hotloop::kDeviceApiVersion ? &api : nullptr;
}
