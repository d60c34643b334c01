// SPDX-License-Identifier: Apache-2.0
// The table that a device library exports: all that the executor knows of a device. Plain C++ without CUDA;
// the CUDA library (nvcc) and the emulator (tests/simt) fill in the same one.
//
// Functions give a DeviceStatus; what went wrong, in words, is last_error() of the same thread. None throws.
// Work on a stream is asynchronous: an error of a kernel shows at the next synchronisation.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hotloop {

enum DeviceStatus : int {
  kDeviceOk = 0,
  kNoDriver = 1,      // nothing that can be asked for devices
  kDriverTooOld = 2,  // it knows less than this library was built for
  kNoDevice = 3,
  kDeviceMemory = 4,  // not enough of it: everything is as it was before the call
  kDeviceFault = 5,   // a kernel failed: the device's memory is lost
  kDeviceMisuse = 6,  // an argument that this library does not take: a defect
};

using DeviceStream = void*;
using DeviceEvent = void*;
using DeviceGraph = void*;  // instantiated
using DeviceNode = void*;   // a launch in a stream's capture
enum class CopyKind : int { kToDevice, kToHost, kOnDevice };

struct DeviceTraits {
  char name[256] = {};
  int number = 0;
  int arch = 0;  // 90: sm_90
  int multiprocessors = 1;
  std::size_t shared_per_block = 0;  // with opt-in
  std::size_t memory = 0;            // bytes in all
  std::size_t l2 = 0;
  int has_mma = 0;  // mma, ldmatrix and cp.async: sm_80 and up, and the library holds code for it
};

// How products of float32 operands are computed where a launcher may choose.
enum class Precision : int {
  kFloat32,  // to float32 accuracy, by whatever way is fastest
  kTf32,     // operands rounded to 10 bits of mantissa, float32 sums
  kBf16,     // operands rounded to 7 bits of mantissa, float32 sums
};

struct DeviceStep;

// What a launcher is told next to its arguments.
struct Launch {
  DeviceStream stream = nullptr;
  const DeviceStep* step = nullptr;  // device
  void* workspace = nullptr;  // device, workspace_bytes() of the call and its own; zero at first, and what
                              // a kernel leaves in the first kWorkspaceCounters bytes must be zero again
  const DeviceTraits* traits = nullptr;
  Precision precision = Precision::kFloat32;
};
constexpr std::size_t kWorkspaceCounters = 4096;

// One line of kernels.def.
struct DeviceKernel {
  std::size_t (*workspace)(const void* args, const DeviceTraits& traits, Precision precision);
  void (*launch)(const void* args, const Launch& launch);
};

// A run of steps that each block of rows can go through by itself, as a stage of rows of a plan.
struct ChainStep {
  int kernel = 0;                         // of kernels.def
  const void* args = nullptr;             // as of the whole batch
  const std::int64_t* per_row = nullptr;  // for each field: operands: elements that a row moves it on; sizes:
                                          // how much of it each row adds
  std::uint32_t unread = 0;  // bit f: field f is an output that only later steps of this chain read, so that
                             // it need not be in memory afterwards
};

// Products of one shape whose matrices lie evenly apart: matrix (i, j), i < outer, j < inner.
struct MatmulBatch {
  std::int64_t outer = 1, inner = 1;
  std::int64_t a[2] = {}, b[2] = {}, out[2] = {};  // elements to the next i, to the next j
};

constexpr std::uint32_t kDeviceApiVersion = 1;

struct DeviceApi {
  std::uint32_t version, n_kernels;
  const char* backend;  // "cuda" or "simt"
  const char* (*last_error)();

  // --- devices
  int (*versions)(int* driver, int* built_for);  // 13000: 13.0; driver 0: none
  int (*count)(int* devices);
  int (*open)(int number, DeviceTraits* traits);  // makes a context where there is none: up to a second
  int (*use)(int number);                         // the calling thread works on that device from now on
  int (*memory_info)(std::size_t* free, std::size_t* total);

  // --- memory; addresses are multiples of 256
  int (*allocate)(std::size_t bytes, void** address);
  int (*release)(void* address);
  int (*allocate_pinned)(std::size_t bytes, void** address);  // on the host, for copies that do not wait
  int (*release_pinned)(void* address);
  int (*copy)(void* to, const void* from, std::size_t bytes, CopyKind kind, DeviceStream stream);
  int (*fill)(void* at, int byte, std::size_t bytes, DeviceStream stream);

  // --- order
  int (*stream_create)(DeviceStream* stream);
  int (*stream_release)(DeviceStream stream);
  int (*stream_wait)(DeviceStream stream);  // the host waits
  int (*event_create)(DeviceEvent* event);
  int (*event_release)(DeviceEvent event);
  int (*event_record)(DeviceEvent event, DeviceStream stream);
  int (*event_wait)(DeviceEvent event);                              // the host waits
  int (*event_done)(DeviceEvent event, int* done);                   // does not wait
  int (*stream_wait_event)(DeviceStream stream, DeviceEvent event);  // the stream waits
  int (*event_seconds)(DeviceEvent begin, DeviceEvent end, double* seconds);

  // --- graphs: launches between begin and end are recorded instead of run. What is launched next comes after
  // the nodes of capture_after (without it: after everything before); capture_tail gives the nodes that the
  // last launches ended in, at most `room` of them.
  int (*capture_begin)(DeviceStream stream);
  int (*capture_after)(DeviceStream stream, const DeviceNode* nodes, std::size_t n);
  int (*capture_tail)(DeviceStream stream, DeviceNode* nodes, std::size_t room, std::size_t* n);
  int (*capture_end)(DeviceStream stream, DeviceGraph* graph);  // null graph: give up what was captured
  int (*graph_launch)(DeviceGraph graph, DeviceStream stream);
  int (*graph_release)(DeviceGraph graph);

  // --- work
  int (*launch_status)();  // of the launches since the last call of this
  const DeviceKernel* kernels;
  // A chain in one launch that keeps activations on the chip, if it is of a kind that there is a kernel for.
  int (*chain_fits)(const ChainStep* steps, std::size_t n, std::int64_t rows, const DeviceTraits& traits,
                    Precision precision);
  std::size_t (*chain_workspace)(const ChainStep* steps, std::size_t n, std::int64_t rows,
                                 const DeviceTraits& traits, Precision precision);
  void (*chain_launch)(const ChainStep* steps, std::size_t n, std::int64_t rows, const Launch& launch);
  // The product of kernels.def, MatmulArgs, for each matrix of a batch in one launch; bias is that of all,
  // and saved, gate, residual, row_sum and dropout are absent.
  std::size_t (*matmul_batch_workspace)(const void* args, const MatmulBatch& batch,
                                        const DeviceTraits& traits, Precision precision);
  void (*matmul_batch)(const void* args, const MatmulBatch& batch, const Launch& launch);
  // An optimiser's update (adam, sgd or rmsprop of kernels.def) for each of n arguments, which differ in
  // operands, n and scalars alone: one launch for up to a hundred of the same scalars. Scalars are of the
  // host, and read before this returns; nothing that is written overlaps anything else. False for other
  // kernels.
  bool (*update_list)(int kernel, const void* const* args, std::size_t n, const Launch& launch);
  // Services of the executor that are no steps of plans; asynchronous.
  void (*advance)(DeviceStep* step, DeviceStream stream);  // to the next batch
  void (*gather)(const DeviceStep* step, int64_t rows,
                 int64_t row_elements,  // rows of the batch to the inputs
                 DeviceStream stream);
  void (*exchange)(void* a, void* b, std::size_t bytes, DeviceStream stream);  // the two change places
  // found (1) = 1 if any of n floats is NaN or infinite; else it stays as it is.
  void (*find_not_finite)(const float* x, int64_t n, int* found, DeviceStream stream);
  // first (1) = least index i of x (n) that is NaN or outside [low, high], if below what is there.
  void (*find_outside)(const void* x, int type, int64_t n, double low, double high, int64_t* first,
                       DeviceStream stream);
};

// The library's one symbol; null if it cannot serve that version.
using DeviceApiFunction = const DeviceApi* (*)(std::uint32_t version);
constexpr const char* kDeviceApiSymbol = "hotloop_device_api";

}  // namespace hotloop
