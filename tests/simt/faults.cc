// SPDX-License-Identifier: Apache-2.0
// For each function a wrapper of its own, made from the table's member by a template: it counts the call,
// fails if the plan says so, and keeps the balance of what was made and given back. Besides the table: what
// tests call, hotloop_simt_fail, hotloop_simt_calls and hotloop_simt_live.
#include "simt/faults.h"

#include <atomic>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>

namespace hotloop::simt {
namespace {

// What is made by one function and given back by another.
enum class Thing : int { kNone, kMemory, kPinned, kStream, kEvent, kGraph };
constexpr std::string_view kThings[] = {"", "memory", "pinned", "streams", "events", "graphs"};

struct Call {
  std::string_view name;
  Thing makes = Thing::kNone, gives_back = Thing::kNone;
};
// In the order of the members below.
constexpr Call kCalls[] = {
    {"allocate", Thing::kMemory},
    {"release", Thing::kNone, Thing::kMemory},
    {"allocate_pinned", Thing::kPinned},
    {"release_pinned", Thing::kNone, Thing::kPinned},
    {"copy"},
    {"fill"},
    {"stream_create", Thing::kStream},
    {"stream_release", Thing::kNone, Thing::kStream},
    {"stream_wait"},
    {"event_create", Thing::kEvent},
    {"event_release", Thing::kNone, Thing::kEvent},
    {"event_record"},
    {"event_wait"},
    {"stream_wait_event"},
    {"capture_begin"},
    {"capture_after"},
    {"capture_tail"},
    {"capture_end", Thing::kGraph},
    {"graph_launch"},
    {"graph_release", Thing::kNone, Thing::kGraph},
    {"launch_status"},
};
constexpr int kNumCalls = static_cast<int>(sizeof kCalls / sizeof *kCalls);
constexpr int kNone = -1;

const DeviceApi* base = nullptr;
std::atomic<std::int64_t> calls[kNumCalls]{}, uploads{0}, live[sizeof kThings / sizeof *kThings]{};
// The failure to come: of which function, after how many more calls, with which status; a lasting one is then
// the answer of all functions, as of a context that a kernel has broken.
std::atomic<int> failing{kNone}, status_of_failure{0};
std::atomic<std::int64_t> calls_until{0};
std::atomic<bool> lasts{false}, broken{false};
thread_local std::string t_injected;

int injected(int call) {
  if (!broken.load()) {
    if (failing.load() != call || calls_until.fetch_sub(1) > 0) return kDeviceOk;
    failing = kNone;
    broken = lasts.load();
  }
  t_injected = "injected failure of " + std::string(kCalls[call].name);
  return status_of_failure.load();
}

int find_call(std::string_view name) {
  for (int i = 0; i < kNumCalls; ++i)
    if (kCalls[i].name == name) return i;
  return kNone;
}

std::atomic<std::int64_t>& balance(Thing thing) { return live[static_cast<int>(thing)]; }

template <int kCall, class... Args>
int guarded(int (*original)(Args...), Args... args) {
  ++calls[kCall];
  if constexpr (kCall == 4) {
    static_assert(kCalls[4].name == "copy");
    constexpr std::size_t kKind = 3;
    if (std::get<kKind>(std::tuple(args...)) == CopyKind::kToDevice) ++uploads;
  }
  constexpr bool kGivesBack = kCalls[kCall].gives_back != Thing::kNone;
  const int fault = injected(kCall);
  if (fault != kDeviceOk && !kGivesBack) return fault;
  const int status = original(args...);  // what is given back is gone even where the answer is an error
  if (status != kDeviceOk) t_injected.clear();
  if (kGivesBack) --balance(kCalls[kCall].gives_back);
  if (status == kDeviceOk && kCalls[kCall].makes != Thing::kNone) ++balance(kCalls[kCall].makes);
  return fault != kDeviceOk ? fault : status;
}

template <int kCall, auto kMember>
struct Wrapper;
template <int kCall, class... Args, int (*DeviceApi::*kMember)(Args...)>
struct Wrapper<kCall, kMember> {
  static int call(Args... args) { return guarded<kCall, Args...>(base->*kMember, args...); }
};

// A capture that is given up makes no graph.
int capture_end(DeviceStream stream, DeviceGraph* graph) {
  constexpr int kCall = 17;
  static_assert(kCalls[kCall].name == "capture_end");
  const int status = Wrapper<kCall, &DeviceApi::capture_end>::call(stream, graph);
  if (status == kDeviceOk && graph == nullptr) --balance(Thing::kGraph);
  if (status != kDeviceOk) (void)base->capture_end(stream, nullptr);  // as a stream whose capture broke
  return status;
}

const char* last_error() { return t_injected.empty() ? base->last_error() : t_injected.c_str(); }

template <int kCall, auto kMember>
void wrap(DeviceApi& api) {
  api.*kMember = Wrapper<kCall, kMember>::call;
}

DeviceApi wrapped(const DeviceApi& api) {
  base = &api;
  DeviceApi found = api;
  found.last_error = last_error;
  wrap<0, &DeviceApi::allocate>(found);
  wrap<1, &DeviceApi::release>(found);
  wrap<2, &DeviceApi::allocate_pinned>(found);
  wrap<3, &DeviceApi::release_pinned>(found);
  wrap<4, &DeviceApi::copy>(found);
  wrap<5, &DeviceApi::fill>(found);
  wrap<6, &DeviceApi::stream_create>(found);
  wrap<7, &DeviceApi::stream_release>(found);
  wrap<8, &DeviceApi::stream_wait>(found);
  wrap<9, &DeviceApi::event_create>(found);
  wrap<10, &DeviceApi::event_release>(found);
  wrap<11, &DeviceApi::event_record>(found);
  wrap<12, &DeviceApi::event_wait>(found);
  wrap<13, &DeviceApi::stream_wait_event>(found);
  wrap<14, &DeviceApi::capture_begin>(found);
  wrap<15, &DeviceApi::capture_after>(found);
  wrap<16, &DeviceApi::capture_tail>(found);
  found.capture_end = capture_end;
  wrap<18, &DeviceApi::graph_launch>(found);
  wrap<19, &DeviceApi::graph_release>(found);
  wrap<20, &DeviceApi::launch_status>(found);
  return found;
}

}  // namespace

const DeviceApi* with_faults(const DeviceApi& api) {
  static const DeviceApi found = wrapped(api);
  return &found;
}

}  // namespace hotloop::simt

#define HOTLOOP_EXPORT extern "C" __attribute__((visibility("default")))

// The call after so many more of that function fails with that status, and if the failure lasts, every call
// of every function from then on. An empty name ends it. Whether the function is known.
HOTLOOP_EXPORT int hotloop_simt_fail(const char* name, std::int64_t after, int status, int lasts) {
  using namespace hotloop::simt;
  failing = kNone;
  broken = false;
  if (*name == '\0') return 1;
  const int call = find_call(name);
  if (call == kNone) return 0;
  calls_until = after;
  status_of_failure = status;
  hotloop::simt::lasts = lasts != 0;
  failing = call;
  return 1;
}

// Calls of a function so far; of "upload" copies to the device. -1: no such function.
HOTLOOP_EXPORT std::int64_t hotloop_simt_calls(const char* name) {
  using namespace hotloop::simt;
  if (std::strcmp(name, "upload") == 0) return uploads;
  const int call = find_call(name);
  return call == kNone ? -1 : calls[call].load();
}

// How many of "memory", "pinned", "streams", "events" or "graphs" were made and not given back. -1: no such
// thing.
HOTLOOP_EXPORT std::int64_t hotloop_simt_live(const char* name) {
  using namespace hotloop::simt;
  for (std::size_t i = 1; i < sizeof kThings / sizeof *kThings; ++i)
    if (kThings[i] == name) return live[i];
  return -1;
}

#undef HOTLOOP_EXPORT
