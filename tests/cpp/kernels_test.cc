// SPDX-License-Identifier: Apache-2.0
// Every kernel of every unit that this machine runs against the float64 column of the generic unit. It needs
// no Python, so it also runs under an emulator.
#include <set>

#include "check.h"
#include "kernel_cases.h"

namespace {

std::vector<test::Case> all_cases() {
  std::vector<test::Case> cases;
  test::add_elementwise(cases);
  test::add_reductions(cases);
  test::add_softmax(cases);
  test::add_norms(cases);
  test::add_losses(cases);
  test::add_embeddings(cases);
  test::add_optimizers(cases);
  return cases;
}

// Kernels of the list without a case, but for the matrix product, which has a test of its own.
int without_case(const std::vector<test::Case>& cases) {
  std::set<std::string_view> covered = {"matmul", "pack_panels"};
  for (const test::Case& c : cases) covered.insert(c.kernel);
  int missing = 0;
  for (int i = 0; i < hotloop::kNumKernels; ++i) {
    const std::string_view name = hotloop::kernel_info(static_cast<hotloop::Kernel>(i)).name;
    if (covered.count(name) != 0) continue;
    std::fprintf(stderr, "no case of %s\n", std::string(name).c_str());
    ++missing;
  }
  return missing;
}

}  // namespace

int main() {
  const std::vector<test::Case> cases = all_cases();
  CHECK(without_case(cases) == 0);
  for (const hotloop::IsaUnit& unit : hotloop::usable_isas()) {
    int wrong = 0;
    for (const test::Case& c : cases) wrong += test::agrees(unit, c) ? 0 : 1;
    std::printf("%s: %zu cases, %d wrong\n", std::string(unit.name).c_str(), cases.size(), wrong);
    CHECK(wrong == 0);
  }
  return test::report("kernels");
}
