// SPDX-License-Identifier: Apache-2.0
// Questions about the machine.
#include <chrono>

#include "bindings/register.h"
#include "cpu/aligned_block.h"
#include "cpu/cpu_count.h"
#include "cpu/thread_team.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const IsaUnit& unit : usable_isas()) names.emplace_back(unit.name);
  return names;
}

double fma_peak_gflops(const std::string& isa, double seconds) {
  const IsaUnit& unit = find_isa(isa);
  const py::gil_scoped_release release;  // registers only: no Python object is touched
  return unit.fma_peak(seconds) * 1e-9;
}

// GB/s of a stream that reads four arrays and writes three, as AdamW does, over 4 x 64 MB.
double stream_gbs(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kElements = std::size_t{16} << 20;
  const py::gil_scoped_release release;  // native memory only
  AlignedBlock blocks[4] = {AlignedBlock(kElements * 4), AlignedBlock(kElements * 4),
                            AlignedBlock(kElements * 4), AlignedBlock(kElements * 4)};
  float* __restrict__ p = reinterpret_cast<float*>(blocks[0].data());
  float* __restrict__ a = reinterpret_cast<float*>(blocks[1].data());
  float* __restrict__ b = reinterpret_cast<float*>(blocks[2].data());
  const float* __restrict__ g = reinterpret_cast<const float*>(blocks[3].data());
  double best = 0.0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    const auto t0 = Clock::now();
    for (std::size_t i = 0; i < kElements; ++i) {
      a[i] = a[i] + g[i];
      b[i] = b[i] - g[i];
      p[i] = p[i] + a[i] * b[i];
    }
    const double dt = std::chrono::duration<double>(Clock::now() - t0).count();
    best = std::max(best, 7.0 * 4.0 * static_cast<double>(kElements) / dt);
  }
  return best * 1e-9;
}

}  // namespace

void register_device(py::module_& m) {
  m.def("isas", &isas, "Kernel units that this build has and this CPU can run, slowest first.");
  m.def(
      "best_isa", [] { return std::string(find_isa("").name); },
      "The unit in use: HOTLOOP_ISA, else the fastest.");
  m.def("cpu_count", &cpu_count, "Processors this process may use: affinity and cgroup quota.");
  m.def("fma_peak_gflops", &fma_peak_gflops, py::arg("isa") = "", py::arg("seconds") = 0.2,
        "Best rate of float32 fused multiply-adds of one core, in GFLOP/s, over that many seconds.");
  m.def("stream_gbs", &stream_gbs, py::arg("seconds") = 0.5,
        "Best rate of a stream of 4 reads and 3 writes over 256 MB on one core, in GB/s.");
  py::class_<ThreadTeam>(m, "Team", "Threads that share the chunks of a step. Started on first need.")
      .def(py::init<int>(), py::arg("threads"))
      .def_property_readonly("threads", &ThreadTeam::threads);
}

}  // namespace hotloop
