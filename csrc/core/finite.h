// SPDX-License-Identifier: Apache-2.0
// Whether numbers are all finite, at the speed of memory. A number is finite unless all bits of its exponent
// are set; integers, because the compiler may take many at a time, which it may not with sums of floats.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hotloop {

template <class Bits>
bool all_finite(const std::byte* data, std::int64_t n, Bits exponent) {
  constexpr std::int64_t kBlock = 4096;  // a step between looks at the result: what is not finite ends early
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t end = std::min(n, begin + kBlock);
    Bits bad = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, data + static_cast<std::size_t>(i) * sizeof bits, sizeof bits);
      bad |= static_cast<Bits>((bits & exponent) == exponent);
    }
    if (bad != 0) return false;
  }
  return true;
}

// n floats of 4 or 8 bytes each.
inline bool all_finite(const std::byte* data, std::int64_t n, std::size_t each) {
  return each == 4 ? all_finite<std::uint32_t>(data, n, 0x7F800000u)
                   : all_finite<std::uint64_t>(data, n, 0x7FF0000000000000u);
}

}  // namespace hotloop
