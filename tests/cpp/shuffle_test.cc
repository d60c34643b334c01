// SPDX-License-Identifier: Apache-2.0
// The epoch's order is a bijection for every size up to 4096, differs by epoch, and mixes well enough that
// neither neighbours nor positions survive.
#include "core/shuffle.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "kernels/isa.h"

namespace {

bool is_bijection(std::uint64_t n, std::uint64_t seed, std::uint32_t epoch) {
  const hotloop::Permutation permutation(n, seed, /*run=*/0, epoch);
  std::vector<bool> seen(n, false);
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t row = permutation(i);
    if (row >= n || seen[row]) return false;
    seen[row] = true;
  }
  return true;
}

// Rows of `n` that two epochs put at the same position; about one is expected of random orders.
std::uint64_t fixed_between(std::uint64_t n, std::uint32_t a, std::uint32_t b) {
  const hotloop::Permutation first(n, 3, 0, a), second(n, 3, 0, b);
  std::uint64_t equal = 0;
  for (std::uint64_t i = 0; i < n; ++i) equal += first(i) == second(i);
  return equal;
}

// Chi-square of where position 0 of 2000 epochs lands among 10 rows; 9 degrees of freedom.
double first_row_chi_square() {
  constexpr int kRows = 10, kEpochs = 2000;
  int counts[kRows] = {};
  for (std::uint32_t epoch = 0; epoch < kEpochs; ++epoch)
    ++counts[hotloop::Permutation(kRows, 11, 0, epoch)(0)];
  double sum = 0;
  for (const int count : counts) {
    const double difference = count - static_cast<double>(kEpochs) / kRows;
    sum += difference * difference / (static_cast<double>(kEpochs) / kRows);
  }
  return sum;
}

// Correlation of position and row over one epoch of n.
double correlation(std::uint64_t n) {
  const hotloop::Permutation permutation(n, 5, 0, 0);
  const double mean = (static_cast<double>(n) - 1) / 2;
  double covariance = 0, variance = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(i) - mean;
    covariance += x * (static_cast<double>(permutation(i)) - mean);
    variance += x * x;
  }
  return covariance / variance;
}

// Positions [first, first + count) by a unit are those of one call each; `guard` stays.
bool unit_agrees(const hotloop::IsaUnit& unit, std::uint64_t n, std::uint64_t first, std::uint64_t count) {
  const hotloop::Permutation permutation(n, /*seed=*/n * 31, /*run=*/2, /*epoch=*/7);
  constexpr std::int64_t guard = -1;
  std::vector<std::int64_t> rows(count + 1, guard);
  unit.shuffle_rows(permutation, static_cast<std::int64_t>(first), static_cast<std::int64_t>(count),
                    rows.data());
  for (std::uint64_t i = 0; i < count; ++i) {
    if (rows[i] != static_cast<std::int64_t>(permutation(first + i))) return false;
  }
  return rows[count] == guard;
}

// Every n up to 4096 whole; then parts of large orders, on both sides of 32-bit rows and halves.
bool unit_agrees(const hotloop::IsaUnit& unit) {
  for (std::uint64_t n = 1; n <= 4096; ++n) {
    if (!unit_agrees(unit, n, 0, n) || !unit_agrees(unit, n, n / 3, n - n / 3)) return false;
  }
  for (const int bits : {16, 31, 32, 33, 40, 53, 62}) {
    for (const std::uint64_t n : {(1ull << bits) - 1, 1ull << bits, (1ull << bits) + 1}) {
      for (const std::uint64_t count : {0ull, 1ull, 33ull, 2500ull}) {
        if (!unit_agrees(unit, n, n - count, count) || !unit_agrees(unit, n, 5, count)) return false;
      }
    }
  }
  return true;
}

}  // namespace

int main() {
  for (std::uint64_t n = 1; n <= 4096; ++n) CHECK(is_bijection(n, /*seed=*/n * 31, /*epoch=*/0));
  CHECK(is_bijection(1000003, 1, 5));
  CHECK(fixed_between(1000, 0, 1) < 10);
  CHECK(first_row_chi_square() < 27.9);            // the 0.1 % point; the test is deterministic
  CHECK(std::fabs(correlation(100000)) < 0.0125);  // four standard deviations
  // Seeking far into a large epoch costs no memory and stays in range.
  const std::uint64_t large = (1ull << 40) + 7;
  CHECK(hotloop::Permutation(large, 1, 0, 0)(large - 1) < large);
  for (const hotloop::IsaUnit& unit : hotloop::usable_isas()) CHECK(unit_agrees(unit));
  return test::report("shuffle");
}
