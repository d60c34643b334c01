// SPDX-License-Identifier: Apache-2.0
// Which unit is chosen, by default and by name, and that the floating-point mode of kernels ends with them.
#include "kernels/isa.h"

#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#include "check.h"
#include "cpu/fp_mode.h"

namespace {

bool refuses(std::string_view name) {
  try {
    hotloop::find_isa(name);
  } catch (const std::invalid_argument& error) {
    return std::string(error.what()).find("generic") != std::string::npos;  // it names what is usable
  }
  return false;
}

// Half of the smallest normal number, or 0 while denormals are flushed; volatile: computed here and now.
float half_of_smallest() {
  volatile float smallest = std::numeric_limits<float>::min();
  volatile float half = smallest * 0.5f;
  return half;
}

}  // namespace

int main() {
  unsetenv("HOTLOOP_ISA");
  const auto& units = hotloop::usable_isas();
  CHECK(units.front().name == "generic" && units.front().table_double != nullptr);
  CHECK(&hotloop::find_isa("") == &units.back());
#if defined(__aarch64__)
  CHECK(units.size() == 2 && units.back().name == "neon");
#endif
  for (const hotloop::IsaUnit& unit : units) {
    CHECK(hotloop::find_isa(unit.name).name == unit.name);
    setenv("HOTLOOP_ISA", std::string(unit.name).c_str(), 1);
    CHECK(hotloop::find_isa("").name == unit.name);
    CHECK(unit.fma_peak(0.001) > 0.0);
  }
  setenv("HOTLOOP_ISA", "sparc", 1);
  CHECK(refuses(""));
  CHECK(refuses("mmx"));

#if defined(__x86_64__) || defined(__aarch64__)
  CHECK(half_of_smallest() > 0.0f);
  {
    const hotloop::FlushDenormals flush;
    CHECK(half_of_smallest() == 0.0f);
    {
      const hotloop::FlushDenormals again;
      CHECK(half_of_smallest() == 0.0f);
    }
    CHECK(half_of_smallest() == 0.0f);
  }
  CHECK(half_of_smallest() > 0.0f);
#endif
  return test::report("isa");
}
