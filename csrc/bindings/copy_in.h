// SPDX-License-Identifier: Apache-2.0
// How somebody else's array becomes an input of a program: converted, and looked at while it is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/error.h"
#include "runtime/source.h"

namespace hotloop {

// Copies n elements, converted; whether all of them lie in [low, high], which no NaN does.
template <class From, class To>
bool copy_checked(const std::byte* from, std::byte* to, int64 n, double low, double high) {
  const From* in = reinterpret_cast<const From*>(from);
  To* out = reinterpret_cast<To*>(to);
  unsigned bad = 0;
  if constexpr (std::is_integral_v<To>) {
    const From least = static_cast<From>(low), most = static_cast<From>(high);
    for (int64 i = 0; i < n; ++i) {
      const From value = in[i];  // read once: another thread may be writing
      bad |= static_cast<unsigned>(value < least) | static_cast<unsigned>(value > most);
      out[i] = static_cast<To>(value);
    }
  } else {
    const To least = static_cast<To>(low), most = static_cast<To>(high);
    for (int64 i = 0; i < n; ++i) {
      const To value = static_cast<To>(in[i]);
      bad |= static_cast<unsigned>(!(value >= least)) | static_cast<unsigned>(!(value <= most));
      out[i] = value;
    }
  }
  return bad == 0;
}

using Copy = bool (*)(const std::byte* from, std::byte* to, int64 n, double low, double high);

template <class To>
Copy copy_to(ElementType from) {
  switch (from) {
    case ElementType::kUint8:
      return copy_checked<std::uint8_t, To>;
    case ElementType::kInt32:
      return copy_checked<std::int32_t, To>;
    case ElementType::kInt64:
      return copy_checked<std::int64_t, To>;
    case ElementType::kFloat32:
      return copy_checked<float, To>;
    case ElementType::kFloat64:
      return copy_checked<double, To>;
  }
  throw InternalError("[step] unknown element type");
}

inline Copy copy_for(ElementType from, DType dtype, Real real) {
  if (dtype == DType::kIndex) return copy_to<index>(from);
  return real == Real::kFloat32 ? copy_to<float>(from) : copy_to<double>(from);
}

}  // namespace hotloop
