// SPDX-License-Identifier: Apache-2.0
// What the host may get wrong: launches of a graph that should wait for each other, memory used too early or
// too late.
#include <cstring>

#include "simt/mutants/mutants.h"
#include "simt/queues.h"

namespace hotloop::cuda::mutants {
namespace {

constexpr int kCount = 100;

HL_KERNEL double_all(const float* x, float* y, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) y[i] = 2 * x[i];
}

bool is_times(const float* y, const float* x, float factor) {
  for (std::size_t i = 0; i < kCount; ++i)
    if (!(y[i] == factor * x[i])) return false;
  return true;
}

// z = 2 y = 4 x in two launches of a graph.
template <Mistake mistake>
bool run_graph() {
  Floats x(kCount, small), y(kCount), z(kCount);
  simt::Queue* const q = simt::make_queue();
  q->captures = true;
  launch(q, double_all, 1, 128, 0, x.data(), y.data(), kCount);
  if (mistake == Mistake::kUnorderedLaunches) q->tail.clear();
  launch(q, double_all, 1, 128, 0, y.data(), z.data(), kCount);
  q->captures = false;
  for (int times = 0; times < 8; ++times) {
    std::memset(y.data(), 0, kCount * sizeof(float));
    simt::replay(q->graph);
    if (!is_times(z.data(), x.data(), 4)) return false;
  }
  simt::drop_queue(q);
  return true;
}

// x to the device, doubled, and back, in one stream.
template <Mistake mistake>
bool run_round() {
  std::vector<float> host(kCount), wanted(kCount);
  for (std::size_t i = 0; i < kCount; ++i) host[i] = wanted[i] = small(i) + 1;
  Floats x(kCount), y(kCount);
  simt::Queue* const q = simt::make_queue();
  constexpr std::size_t kBytes = kCount * sizeof(float);
  const auto copy = [&](float* to, const float* from) {
    simt::submit(q, {{}, [=] { std::memcpy(to, from, kBytes); }});
  };
  copy(x.data(), host.data());
  if (mistake == Mistake::kHostReusedEarly) host.assign(kCount, 0.0f);
  launch(q, double_all, 1, 128, 0, x.data(), y.data(), kCount);
  copy(host.data(), y.data());
  if (mistake != Mistake::kHostReadEarly) q->finish();
  const bool right = is_times(host.data(), wanted.data(), 2);
  simt::drop_queue(q);
  return right;
}

template <Mistake mistake>
bool run_release() {
  Floats x(kCount, small), y(kCount);
  std::vector<float> wanted(x.data(), x.data() + kCount);
  const float* const old = x.data();
  if (mistake == Mistake::kReadsReleased) {
    x.release();
    const Floats next(kCount);  // takes the place
    launch(nullptr, double_all, 1, 128, 0, old, y.data(), kCount);
  } else {
    launch(nullptr, double_all, 1, 128, 0, old, y.data(), kCount);
  }
  return is_times(y.data(), wanted.data(), 2);
}

constexpr Case kCases[] = {
    {"graph", run_graph<Mistake::kNone>},
    {"round", run_round<Mistake::kNone>},
    {"release", run_release<Mistake::kNone>},
    {"unordered_launches", run_graph<Mistake::kUnorderedLaunches>},
    {"host_reused_early", run_round<Mistake::kHostReusedEarly>},
    {"host_read_early", run_round<Mistake::kHostReadEarly>},
    {"reads_released", run_release<Mistake::kReadsReleased>},
};

}  // namespace

std::span<const Case> host_cases() { return kCases; }

}  // namespace hotloop::cuda::mutants
