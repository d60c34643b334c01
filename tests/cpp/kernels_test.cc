// SPDX-License-Identifier: Apache-2.0
// Every kernel of every unit that this machine runs against the float64 column of the generic unit. It needs
// no Python, so it also runs under an emulator.
#include <set>

#include "check.h"
#include "training_cases.h"

namespace {

// A NaN in row 1 and the infinities in rows 3 and 4: they reach the same results as in the oracle, no others.
void add_special_values(std::vector<test::Case>& cases, test::int64 cols) {
  constexpr test::int64 kRows = 6;
  test::Random random(1);
  std::vector<double> values(static_cast<std::size_t>(kRows * cols));
  for (double& x : values) x = random.uniform(-2, 2);
  const auto at = [&](test::int64 row, test::int64 col) -> double& {
    return values[static_cast<std::size_t>(row * cols + col)];
  };
  at(1, cols - 2) = std::nan("");
  at(3, 0) = std::numeric_limits<double>::infinity();
  at(4, 1) = -std::numeric_limits<double>::infinity();
  const test::int64 n = kRows * cols;
  const double r = kRows, c = static_cast<double>(cols);
  const std::vector<test::Attribute> sizes = {{"rows", r}, {"cols", c}};
  const test::Operand row_loss{"row_loss", kRows}, target{"target", n, 0, 1}, dpred{"dpred", n};
  const test::Operand pred{"pred", n, 0, 0, values}, logits{"logits", n, 0, 0, values};
  const test::Operand x{"x", n, 0, 0, values}, labels{"labels", kRows, 0, c};
  cases.push_back({"softmax_fwd", sizes, {{"y", n}, x}});
  cases.push_back({"log_softmax_fwd", sizes, {{"y", n}, x}});
  cases.push_back({"cross_entropy", sizes, {row_loss, {"dlogits", n}, logits, labels}});
  cases.push_back({"accuracy", sizes, {{"totals", 2}, logits, labels}, 0});
  cases.push_back({"clamp", {{"n", r * c}, {"lo", -1}, {"hi", 1}}, {x}, 0});
  cases.push_back({"reduce_max_fwd", {{"outer", r}, {"reduce", c}, {"inner", 1}}, {{"out", kRows}, x}, 0});
  cases.push_back({"reduce_max_fwd", {{"outer", 1}, {"reduce", r}, {"inner", c}}, {{"out", cols}, x}, 0});
  for (const std::string_view loss : {"mse", "mae", "huber", "bce_with_logits"})
    cases.push_back({loss, {{"rows", r}, {"cols", c}, {"p0", 0.75}}, {row_loss, dpred, pred, target}});
}

std::vector<test::Case> all_cases() {
  std::vector<test::Case> cases;
  test::add_elementwise(cases);
  test::add_products_in_parts(cases);
  test::add_reductions(cases);
  test::add_softmax(cases);
  test::add_norms(cases);
  test::add_losses(cases);
  test::add_embeddings(cases);
  test::add_sums_of_steps(cases);
  test::add_optimizers(cases);
  for (const test::int64 cols : {3, 7, 10, 33, 150}) add_special_values(cases, cols);
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
