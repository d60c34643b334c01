// SPDX-License-Identifier: Apache-2.0
// Snapshots and the check for divergence: both read or write each byte once, and the epoch loop needs both
// after every epoch.
#include "runtime/memory.h"

#include <algorithm>
#include <cstring>

namespace hotloop {
namespace {

// A number is finite unless all bits of its exponent are set. Integers, because the compiler may take many
// at a time, which it may not with sums of floats.
template <class Bits>
bool all_finite(const std::byte* data, int64 n, Bits exponent) {
  constexpr int64 kBlock = 4096;  // a step between looks at the result: diverged networks end early
  for (int64 begin = 0; begin < n; begin += kBlock) {
    const int64 end = std::min(n, begin + kBlock);
    Bits bad = 0;
    for (int64 i = begin; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, data + static_cast<std::size_t>(i) * sizeof bits, sizeof bits);
      bad |= static_cast<Bits>((bits & exponent) == exponent);
    }
    if (bad != 0) return false;
  }
  return true;
}

void copy(const AlignedBlock& from, const AlignedBlock& to) {
  std::memcpy(to.data(), from.data(), to.bytes());
}

}  // namespace

void Memory::copy_from(const Memory& other) {
  check(real_ == other.real_ && sizes_.parameters == other.sizes_.parameters &&
            sizes_.state == other.sizes_.state && sizes_.counters == other.sizes_.counters &&
            sizes_.moments == other.sizes_.moments,
        "[memory] copied from a memory of other sizes");
  copy(other.parameters_, parameters_);
  copy(other.moment1_, moment1_);
  copy(other.moment2_, moment2_);
  copy(other.state_, state_);
  copy(other.counters_, counters_);
  parameters_changed();
}

void Memory::begin_ema() {
  check(ema_ != nullptr, "[memory] no room for an average of the parameters");
  copy(parameters_, ema_->average);
  ema_->counter = 0;
}

void Memory::exchange_ema() {
  check(ema_ != nullptr, "[memory] no room for an average of the parameters");
  std::swap_ranges(parameters_.data(), parameters_.data() + parameters_.bytes(), ema_->average.data());
  parameters_changed();
}

bool Memory::is_finite() const {
  const auto finite = [this](const AlignedBlock& block, int64 n) {
    return real_ == Real::kFloat32 ? all_finite<std::uint32_t>(block.data(), n, 0x7F800000u)
                                   : all_finite<std::uint64_t>(block.data(), n, 0x7FF0000000000000u);
  };
  return finite(parameters_, sizes_.parameters) && finite(state_, sizes_.state);
}

}  // namespace hotloop
