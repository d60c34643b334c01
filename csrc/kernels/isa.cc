// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/probe.h"

namespace hotloop {

const std::vector<IsaUnit>& usable_isas() {
  static const std::vector<IsaUnit> units = [] {
    std::vector<IsaUnit> found{{"generic", &generic::table_float, &generic::table_double, &generic::fma_peak,
                                &generic::shuffle_rows}};
#ifdef HOTLOOP_HAS_AVX2
    // The builtin also asks the operating system whether it saves the wide registers.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      found.push_back({"avx2", &avx2::table_float, nullptr, &avx2::fma_peak, &avx2::shuffle_rows});
#endif
#ifdef HOTLOOP_HAS_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("fma"))
      found.push_back({"avx512", &avx512::table_float, nullptr, &avx512::fma_peak, &avx512::shuffle_rows});
#endif
#ifdef HOTLOOP_HAS_NEON
    // Part of every 64-bit ARM processor: there is nothing to ask.
    found.push_back({"neon", &neon::table_float, nullptr, &neon::fma_peak, &neon::shuffle_rows});
#endif
    return found;
  }();
  return units;
}

const IsaUnit& find_isa(std::string_view name) {
  const auto& units = usable_isas();
  std::string wanted(name);
  if (wanted.empty()) {
    const char* forced = std::getenv("HOTLOOP_ISA");
    if (forced == nullptr || *forced == '\0') return units.back();
    wanted = forced;
  }
  std::string allowed;
  for (const IsaUnit& unit : units) {
    if (unit.name == wanted) return unit;
    allowed += (allowed.empty() ? "" : ", ") + std::string(unit.name);
  }
  throw std::invalid_argument("[isa] HOTLOOP_ISA or isa= asks for '" + wanted +
                              "', which this build or this CPU lacks; usable here: " + allowed);
}

const KernelFn& kernel_in_use(Kernel kernel, bool is_double) {
  const IsaUnit& unit = find_isa(is_double ? "generic" : "");
  return (is_double ? *unit.table_double : *unit.table_float)[static_cast<int>(kernel)];
}

}  // namespace hotloop
