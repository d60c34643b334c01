// SPDX-License-Identifier: Apache-2.0
// The device table of the emulator: device memory is host memory, a stream runs at once, a graph is the list
// of its launches. What a kernel does wrong is kept and given by the next launch_status or stream_wait.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cuda/portable.h"
#include "kernels/launchers.h"
#include "simt/emulator.h"

namespace hotloop::cuda {
namespace {

// Commands in the order of their launch, and for each the earlier ones that it waits for.
struct Graph {
  std::vector<simt::Command> commands;
  std::vector<std::vector<std::size_t>> after;
};
struct Queue : simt::Queue {
  Graph graph;                    // while capturing
  std::vector<std::size_t> tail;  // what the next command waits for

  // Takes the commands that came since the last look into the chain behind `tail`.
  void settle() {
    for (std::size_t i = graph.after.size(); i < graph.commands.size(); ++i) {
      graph.after.push_back(tail);
      tail = {i};
    }
  }
};
struct Event {
  std::chrono::steady_clock::time_point at{};
};

thread_local std::string t_error;

int fail(DeviceStatus status, const std::string& what) {
  t_error = what;
  return status;
}

Queue* queue(DeviceStream stream) { return static_cast<Queue*>(stream); }

int fetch_fault() {
  const std::string what = simt::take_fault();
  return what.empty() ? int{kDeviceOk} : fail(kDeviceFault, what);
}

const char* last_error() { return t_error.c_str(); }
int versions(int* driver, int* built_for) {
  *driver = *built_for = 13000;
  return kDeviceOk;
}
int count(int* devices) {
  *devices = 1;
  return kDeviceOk;
}
int open(int number, DeviceTraits* traits) {
  if (number != 0) return fail(kNoDevice, "the emulator has one device, number 0");
  std::snprintf(traits->name, sizeof traits->name, "SIMT emulator");
  traits->arch = 90;
  traits->multiprocessors = 4;
  traits->shared_per_block = 227 * 1024;
  traits->memory = std::size_t{8} << 30;
  traits->l2 = std::size_t{50} << 20;
  traits->has_mma = 1;
  return kDeviceOk;
}
int use(int number) {
  return number == 0 ? kDeviceOk : fail(kNoDevice, "the emulator has one device, number 0");
}
int memory_info(std::size_t* free, std::size_t* total) {
  *free = *total = std::size_t{8} << 30;
  return kDeviceOk;
}
int allocate(std::size_t bytes, void** address) {
  *address = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *address != nullptr ? kDeviceOk : fail(kDeviceMemory, "out of memory");
}
int release(void* address) {
  std::free(address);
  return kDeviceOk;
}
int copy(void* to, const void* from, std::size_t bytes, CopyKind, DeviceStream stream) {
  simt::submit(queue(stream), {{}, [=] { std::memcpy(to, from, bytes); }});
  return kDeviceOk;
}
int fill(void* at, int byte, std::size_t bytes, DeviceStream stream) {
  simt::submit(queue(stream), {{}, [=] { std::memset(at, byte, bytes); }});
  return kDeviceOk;
}
int stream_create(DeviceStream* stream) {
  *stream = new Queue;
  return kDeviceOk;
}
int stream_release(DeviceStream stream) {
  delete queue(stream);
  return kDeviceOk;
}
int stream_wait(DeviceStream) { return fetch_fault(); }
int event_create(DeviceEvent* event) {
  *event = new Event;
  return kDeviceOk;
}
int event_release(DeviceEvent event) {
  delete static_cast<Event*>(event);
  return kDeviceOk;
}
int event_record(DeviceEvent event, DeviceStream) {
  static_cast<Event*>(event)->at = std::chrono::steady_clock::now();
  return kDeviceOk;
}
int event_wait(DeviceEvent) { return fetch_fault(); }
int event_done(DeviceEvent, int* done) {
  *done = 1;
  return kDeviceOk;
}
int stream_wait_event(DeviceStream, DeviceEvent) { return kDeviceOk; }
int event_seconds(DeviceEvent begin, DeviceEvent end, double* seconds) {
  const auto spent = static_cast<Event*>(end)->at - static_cast<Event*>(begin)->at;
  *seconds = std::chrono::duration<double>(spent).count();
  return kDeviceOk;
}

int capture_begin(DeviceStream stream) {
  Queue* q = queue(stream);
  if (q == nullptr || q->capture != nullptr) return fail(kDeviceMisuse, "cannot capture this stream now");
  q->graph = {};
  q->tail.clear();
  q->capture = &q->graph.commands;
  return kDeviceOk;
}
// A node is its place in the list, counted from 1.
int capture_after(DeviceStream stream, const DeviceNode* nodes, std::size_t n) {
  Queue* q = queue(stream);
  q->settle();
  q->tail.clear();
  for (std::size_t i = 0; i < n; ++i) q->tail.push_back(reinterpret_cast<std::uintptr_t>(nodes[i]) - 1);
  return kDeviceOk;
}
int capture_tail(DeviceStream stream, DeviceNode* nodes, std::size_t room, std::size_t* n) {
  Queue* q = queue(stream);
  q->settle();
  *n = q->tail.size();
  if (*n > room) return fail(kDeviceMisuse, "no room for the capture's last nodes");
  for (std::size_t i = 0; i < *n; ++i) nodes[i] = reinterpret_cast<DeviceNode>(q->tail[i] + 1);
  return kDeviceOk;
}
int capture_end(DeviceStream stream, DeviceGraph* graph) {
  Queue* q = queue(stream);
  q->settle();
  q->capture = nullptr;
  if (graph != nullptr) *graph = new Graph(std::move(q->graph));
  return kDeviceOk;
}
int graph_launch(DeviceGraph graph, DeviceStream) {
  for (const simt::Command& command : static_cast<Graph*>(graph)->commands) simt::perform(command);
  return kDeviceOk;
}
int graph_release(DeviceGraph graph) {
  delete static_cast<Graph*>(graph);
  return kDeviceOk;
}
int launch_status() { return fetch_fault(); }

}  // namespace
}  // namespace hotloop::cuda

extern "C" __attribute__((visibility("default"))) const hotloop::DeviceApi* hotloop_device_api(
    std::uint32_t version) {
  using namespace hotloop::cuda;
  static const hotloop::DeviceApi api = {hotloop::kDeviceApiVersion,
                                         n_launchers(),
                                         "simt",
                                         last_error,
                                         versions,
                                         count,
                                         open,
                                         use,
                                         memory_info,
                                         allocate,
                                         release,
                                         allocate,
                                         release,
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
                                         advance,
                                         gather,
                                         exchange,
                                         find_not_finite,
                                         find_outside};
  return version == hotloop::kDeviceApiVersion ? &api : nullptr;
}
