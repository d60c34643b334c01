// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_count.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace hotloop {
namespace {

int affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// CPUs' worth of quota, or 0 if there is none. Version 2: "max 100000" or "150000 100000" in cpu.max.
double cgroup_quota() {
  std::string quota;
  double period = 0.0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period && period > 0.0)
    return quota == "max" ? 0.0 : std::strtod(quota.c_str(), nullptr) / period;
  double v1 = 0.0;
  if (std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
      q >> v1 && p >> period && v1 > 0.0 && period > 0.0)
    return v1 / period;
  return 0.0;
}

// Reading the files takes 15 us, as long as an update of a small model: a change is seen a second later.
// Two threads may read them at once; whoever sees a time sees the quota that was read before it.
double recent_quota() {
  using Clock = std::chrono::steady_clock;
  static std::atomic<Clock::rep> stale_at{0};
  static std::atomic<double> known{0.0};
  const Clock::time_point now = Clock::now();
  if (now.time_since_epoch().count() >= stale_at.load(std::memory_order_acquire)) {
    known.store(cgroup_quota(), std::memory_order_relaxed);
    const auto later = (now + std::chrono::seconds(1)).time_since_epoch().count();
    stale_at.store(later, std::memory_order_release);
  }
  return known.load(std::memory_order_relaxed);
}

}  // namespace

int cpu_count() {
  const int processors = affinity();
  const double quota = recent_quota();
  return quota > 0.0 ? std::clamp(static_cast<int>(std::ceil(quota)), 1, processors) : processors;
}

}  // namespace hotloop
