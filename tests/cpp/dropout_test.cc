// SPDX-License-Identifier: Apache-2.0
// Dropout of every unit, element by element, against the plain Philox of core/: the masks of all instruction
// sets are one promise. Also where the number of a block leaves 32 bits, and for a part of a batch.
#include "check.h"
#include "core/philox.h"
#include "kernel_driver.h"

namespace {

using hotloop::int64;

struct Place {
  int64 first_row, row;  // the call begins at element first_row * row of the batch
  std::uint64_t step;
  double rate;
};

// 8 * 2^32 elements are 2^32 blocks of eight.
constexpr Place kPlaces[] = {{0, 1, 0, 0.5},
                             {3, 5, 7, 0.3},
                             {1, 8, 1ull << 32, 0.1},
                             {(1ll << 35) - 20, 1, 3, 0.3},
                             {(1ll << 32) - 2, 8, ~0ull, 0.7},
                             {2, 9, 1, 1.0},
                             {2, 9, 1, 0.0}};
constexpr int64 kCounts[] = {0, 1, 2, 3, 5, 8, 15, 64, 65, 200, 16384 + 77};

float dropped(float x, const hotloop::StepContext& ctx, double rate, int64 element) {
  const int threshold = static_cast<int>(rate * 65536.0 + 0.5);
  if (threshold == 0) return x;
  const auto key = hotloop::stream_key(ctx.seed, ctx.run, 0, hotloop::Stream::kDropout);
  const auto block = static_cast<std::uint64_t>(element / 8);
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto words =
      hotloop::philox({{low(block), low(block >> 32), low(ctx.step), low(ctx.step >> 32)}}, key);
  const int64 half = element % 8;
  const auto bits = static_cast<int>((words.word[half / 2] >> (16 * (half % 2))) & 0xFFFFu);
  return bits < threshold ? 0.0f : x * static_cast<float>(65536.0 / (65536.0 - threshold));
}

bool follows_philox(const hotloop::IsaUnit& unit, const Place& place, int64 n) {
  hotloop::StepContext ctx = test::context();
  ctx.dropout = &place.rate, ctx.step = place.step, ctx.first_row = place.first_row;
  test::Random random(static_cast<std::uint64_t>(n));
  std::vector<float> x(static_cast<std::size_t>(n)), y(x.size(), -1.0f);
  for (float& value : x) value = static_cast<float>(random.uniform(-1, 1));
  const hotloop::DropoutArgs<float> args{y.data(), x.data(), n, place.row, 0};
  const hotloop::KernelFn& fn = (*unit.table_float)[hotloop::find_kernel("dropout")];
  for (int64 i = 0; i < fn.chunks(&args); ++i) fn.run(&args, ctx, i);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float want = dropped(x[i], ctx, place.rate, place.first_row * place.row + static_cast<int64>(i));
    if (y[i] != want) return false;
  }
  return true;
}

// What is dropped is 0 even if it was infinite or NaN.
bool drops_what_is_not_a_number(const hotloop::IsaUnit& unit) {
  hotloop::StepContext ctx = test::context();
  const double rate = 1.0;
  ctx.dropout = &rate;
  std::vector<float> x(37, std::nanf("")), y(x.size(), -1.0f);
  x[5] = std::numeric_limits<float>::infinity();
  const hotloop::DropoutArgs<float> args{y.data(), x.data(), static_cast<int64>(x.size()), 1, 0};
  (*unit.table_float)[hotloop::find_kernel("dropout")].run(&args, ctx, 0);
  for (const float value : y) {
    if (value != 0.0f) return false;
  }
  return true;
}

}  // namespace

int main() {
  for (const hotloop::IsaUnit& unit : hotloop::usable_isas()) {
    for (const Place& place : kPlaces) {
      for (const int64 n : kCounts) CHECK(follows_philox(unit, place, n));
    }
    CHECK(drops_what_is_not_a_number(unit));
  }
  return test::report("dropout");
}
