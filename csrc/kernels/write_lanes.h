// SPDX-License-Identifier: Apache-2.0
// The loop that writes an output, once. Long ones begin at a boundary of vectors, where arrays from malloc do
// not: lines split between two vectors cost up to a tenth of the time. Very long ones go past the caches.
#pragma once

#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// Bytes from which an output is streamed. It saves reading each line before it is overwritten, a third of
// what relu moves, and leaves the caches to others. On a processor with 32 MB of L3, relu of 16 MB takes 0.65
// of the time; and with a kernel behind it that reads all of it at once, 12 MB are where the two ways part:
// at 8 MB streaming loses 5 % then, from 16 MB on it gains.
constexpr int64 kStreamBytes = int64{12} << 20;

template <class real>
constexpr bool kCanStream = requires(Vec<real> v, real* line) { stream(v, line); };

// Whether n elements of output are streamed; no kernel does so in place. Chunks that did end with end_stream.
template <class real>
constexpr bool streams(int64 n) {
  return kCanStream<real> && n * static_cast<int64>(sizeof(real)) >= kStreamBytes;
}
template <class real>
HOTLOOP_INLINE void end_stream([[maybe_unused]] bool streamed) {
  if constexpr (kCanStream<real>) {
    if (streamed) streams_done();
  }
}

// Elements up to the next address that is a multiple of a vector.
template <class real>
HOTLOOP_INLINE int64 to_boundary(const real* p) {
  constexpr auto bytes = static_cast<__UINTPTR_TYPE__>(Vec<real>::width) * sizeof(real);
  return static_cast<int64>((bytes - reinterpret_cast<__UINTPTR_TYPE__>(p) % bytes) % bytes / sizeof(real));
}

// y[i ...] = value(i, n) over a range, in vectors of n <= width elements.
template <class real, class Value>
HOTLOOP_INLINE void write_lanes(Range range, real* y, [[maybe_unused]] bool streamed, Value&& value) {
  using V = Vec<real>;
  constexpr int64 kLong = 256;  // where two broken vectors instead of one do not matter
  const auto put = [&](int64 i, int64 n) HOTLOOP_BODY { store(value(i, n), y + i, n); };
  int64 i = range.begin;
  if (range.end - i >= kLong) {
    const int64 head = to_boundary(y + i);
    if (head > 0) put(i, head);
    i += head;
  }
  if constexpr (kCanStream<real>) {
    if (streamed) {
      // Four at a time, so that whole lines leave the write buffers together.
      for (; i + 4 * V::width <= range.end; i += 4 * V::width) {
        V v[4];
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) v[u] = value(i + u * V::width, V::width);
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) stream(v[u], y + i + u * V::width);
      }
      for (; i + V::width <= range.end; i += V::width) stream(value(i, V::width), y + i);
    }
  }
  for_lanes<real>(i, range.end, put);
}

}  // namespace hotloop::HOTLOOP_ISA
