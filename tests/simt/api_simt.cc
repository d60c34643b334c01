// SPDX-License-Identifier: Apache-2.0
// The device table of the emulator. What a kernel does wrong is kept and given by the next launch_status or
// wait, as on a device. Besides the table: hotloop_simt_mode, the mode of what comes next, for tests.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cuda/portable.h"
#include "kernels/launchers.h"
#include "simt/device_memory.h"
#include "simt/mode.h"
#include "simt/queues.h"

namespace hotloop::cuda {
namespace {

using simt::Event;
using simt::Graph;
using simt::Queue;

thread_local std::string t_error;

int fail(DeviceStatus status, const std::string& what) {
  t_error = what;
  return status;
}

Queue* queue(DeviceStream stream) { return static_cast<Queue*>(stream); }
Event* event_of(DeviceEvent event) { return static_cast<Event*>(event); }

int fetch_fault() {
  const std::string what = simt::take_fault();
  return what.empty() ? int{kDeviceOk} : fail(kDeviceFault, what);
}

// ---- devices

constexpr const char* kOneDevice = "the emulator has one device, number 0";

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
  if (number != 0) return fail(kNoDevice, kOneDevice);
  std::snprintf(traits->name, sizeof traits->name, "SIMT emulator");
  traits->arch = 90;
  traits->multiprocessors = 4;  // few, so that loops over the grid take several turns
  traits->shared_per_block = 227 * 1024;
  traits->memory = simt::kDeviceMemory;
  traits->l2 = std::size_t{50} << 20;
  traits->has_mma = 1;
  return kDeviceOk;
}
int use(int number) { return number == 0 ? int{kDeviceOk} : fail(kNoDevice, kOneDevice); }
int memory_info(std::size_t* free, std::size_t* total) {
  *free = simt::memory_left();
  *total = simt::kDeviceMemory;
  return kDeviceOk;
}

// ---- memory

int allocate(std::size_t bytes, void** address) {
  *address = simt::allocate(bytes);
  return *address ? int{kDeviceOk}
                  : fail(kDeviceMemory, "the emulated device has " + std::to_string(simt::memory_left()) +
                                            " bytes left, asked for " + std::to_string(bytes));
}
int release(void* address) {
  simt::finish_all();
  const std::string what = simt::release(address);
  return what.empty() ? int{kDeviceOk} : fail(kDeviceFault, what);
}

// Host memory that a device reads and writes by itself: all other is copied through memory of the driver's
// own.
std::mutex pinned_guard;
std::map<const std::byte*, std::size_t> pinned;

int allocate_pinned(std::size_t bytes, void** address) {
  constexpr std::size_t kAlign = 256;
  *address = std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
  if (!*address) return fail(kDeviceMemory, "no host memory left for " + std::to_string(bytes) + " bytes");
  const std::lock_guard lock(pinned_guard);
  pinned[static_cast<const std::byte*>(*address)] = bytes;
  return kDeviceOk;
}
int release_pinned(void* address) {
  simt::finish_all();
  const std::lock_guard lock(pinned_guard);
  pinned.erase(static_cast<const std::byte*>(address));
  std::free(address);
  return kDeviceOk;
}
bool is_pinned(const void* p) {
  const std::lock_guard lock(pinned_guard);
  const auto after = pinned.upper_bound(static_cast<const std::byte*>(p));
  if (after == pinned.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return p < begin + bytes;
}

int copy(void* to, const void* from, std::size_t bytes, CopyKind kind, DeviceStream stream) {
  if (bytes == 0) return kDeviceOk;
  const bool to_device = kind != CopyKind::kToHost, from_device = kind != CopyKind::kToDevice;
  if (to_device != simt::on_device(to, bytes) || from_device != simt::on_device(from, bytes))
    return fail(kDeviceMisuse, "a copy of " + std::to_string(bytes) +
                                   " bytes whose ends are not where it says, or not in one block of memory");
  Queue* const q = queue(stream);
  const bool captures = q && q->captures;
  if (!from_device && !captures && !is_pinned(from)) {
    const auto* const begin = static_cast<const std::byte*>(from);
    const auto kept = std::make_shared<std::vector<std::byte>>(begin, begin + bytes);
    simt::submit(q, {{}, [=] { std::memcpy(to, kept->data(), kept->size()); }});
    return kDeviceOk;
  }
  simt::submit(q, {{}, [=] { std::memmove(to, from, bytes); }});
  if (q && !to_device && !captures && !is_pinned(to)) q->finish();
  return kDeviceOk;
}
int fill(void* at, int byte, std::size_t bytes, DeviceStream stream) {
  if (bytes == 0) return kDeviceOk;
  if (!simt::on_device(at, bytes))
    return fail(kDeviceMisuse, "a fill of what is not in one block of device memory");
  simt::submit(queue(stream), {{}, [=] { std::memset(at, byte, bytes); }});
  return kDeviceOk;
}

// ---- order

int stream_create(DeviceStream* stream) {
  *stream = simt::make_queue();
  return kDeviceOk;
}
int stream_release(DeviceStream stream) {
  simt::drop_queue(queue(stream));
  return kDeviceOk;
}
int stream_wait(DeviceStream stream) {
  if (Queue* const q = queue(stream); q && q->captures)
    return fail(kDeviceMisuse, "cannot wait for a stream that captures");
  if (stream)
    queue(stream)->finish();
  else
    simt::finish_all();
  return fetch_fault();
}
int event_create(DeviceEvent* event) {
  *event = new Event;
  return kDeviceOk;
}
int event_release(DeviceEvent event) {
  delete event_of(event);
  return kDeviceOk;
}
int event_record(DeviceEvent event, DeviceStream stream) {
  event_of(event)->record(queue(stream));
  return kDeviceOk;
}
int event_wait(DeviceEvent event) {
  event_of(event)->finish();
  return fetch_fault();
}
// Who asks again and again must see an end: each question lets one command run.
int event_done(DeviceEvent event, int* done) {
  const Event& e = *event_of(event);
  *done = e.done() ? 1 : 0;
  if (const auto q = e.queue.lock(); q && !*done) q->run_until(q->run + 1);
  return kDeviceOk;
}
int stream_wait_event(DeviceStream stream, DeviceEvent event) {
  simt::submit(queue(stream), {{}, [e = *event_of(event)] { e.finish(); }});
  return kDeviceOk;
}
int event_seconds(DeviceEvent begin, DeviceEvent end, double* seconds) {
  if (!event_of(begin)->done() || !event_of(end)->done())
    return fail(kDeviceMisuse, "an event that is not done yet");
  *seconds = std::chrono::duration<double>(*event_of(end)->at - *event_of(begin)->at).count();
  return kDeviceOk;
}

// ---- graphs

int capture_begin(DeviceStream stream) {
  Queue* const q = queue(stream);
  if (!q || q->captures) return fail(kDeviceMisuse, "cannot capture this stream now");
  q->graph = {};
  q->tail.clear();
  q->captures = true;
  return kDeviceOk;
}
// A node is its place in the list, counted from 1.
int capture_after(DeviceStream stream, const DeviceNode* nodes, std::size_t n) {
  Queue* const q = queue(stream);
  if (!q->captures) return fail(kDeviceMisuse, "the stream does not capture");
  q->tail.clear();
  for (std::size_t i = 0; i < n; ++i) q->tail.push_back(reinterpret_cast<std::uintptr_t>(nodes[i]) - 1);
  return kDeviceOk;
}
int capture_tail(DeviceStream stream, DeviceNode* nodes, std::size_t room, std::size_t* n) {
  const Queue* const q = queue(stream);
  *n = q->tail.size();
  if (*n > room) return fail(kDeviceMisuse, "no room for the capture's last nodes");
  for (std::size_t i = 0; i < *n; ++i) nodes[i] = reinterpret_cast<DeviceNode>(q->tail[i] + 1);
  return kDeviceOk;
}
int capture_end(DeviceStream stream, DeviceGraph* graph) {
  Queue* const q = queue(stream);
  if (!q->captures) return fail(kDeviceMisuse, "the stream does not capture");
  q->captures = false;
  if (graph) *graph = new std::shared_ptr<const Graph>(std::make_shared<Graph>(std::move(q->graph)));
  q->graph = {};
  return kDeviceOk;
}
int graph_launch(DeviceGraph graph, DeviceStream stream) {
  const auto shared = *static_cast<std::shared_ptr<const Graph>*>(graph);
  simt::submit(queue(stream), {{}, [shared] { simt::replay(*shared); }});
  return kDeviceOk;
}
int graph_release(DeviceGraph graph) {
  delete static_cast<std::shared_ptr<const Graph>*>(graph);
  return kDeviceOk;
}
int launch_status() { return fetch_fault(); }

int set_mode(const char* words) {
  try {
    simt::finish_all();
    simt::set_mode(simt::parse_mode(words));
    return kDeviceOk;
  } catch (const std::exception& e) {
    return fail(kDeviceMisuse, e.what());
  }
}

}  // namespace
}  // namespace hotloop::cuda

// Words as in HOTLOOP_SIMT; a DeviceStatus.
extern "C" __attribute__((visibility("default"))) int hotloop_simt_mode(const char* words) {
  return hotloop::cuda::set_mode(words);
}

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
