// SPDX-License-Identifier: Apache-2.0
#include "runtime/team_calls.h"

#include <time.h>

namespace hotloop {
namespace {

double seconds_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

double TeamCalls::now() { return seconds_of(CLOCK_MONOTONIC); }
double TeamCalls::processor_time() { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

TeamCalls& TeamCalls::here() {
  thread_local TeamCalls calls;
  return calls;
}

TeamCalls::Known& TeamCalls::known(const ThreadTeam* team, const void* kernel, int64 size) {
  const std::size_t place = reinterpret_cast<std::uintptr_t>(kernel) / 64 + static_cast<std::size_t>(size);
  Known& call = known_[place % kKnown];
  if (call.team != team || call.kernel != kernel || call.size != size) {
    call = Known();
    call.team = team, call.kernel = kernel, call.size = size;
  }
  return call;
}

}  // namespace hotloop
