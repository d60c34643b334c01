// SPDX-License-Identifier: Apache-2.0
#include "runtime/source.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace hotloop {
namespace {

// Rows per chunk of gathering: about 64 KB of output, as for element-wise kernels.
constexpr int64 kChunkElements = kElementwiseChunk;
// How many rows ahead the next random row is asked for: about the latency of memory over a short row's copy.
constexpr int64 kPrefetchRows = 4;

template <class From, class To>
void gather_as(const SourceArray& array, const RowRange& rows, To* out, ThreadTeam& team) {
  const int64 width = array.row_size;
  const From* data = reinterpret_cast<const From*>(array.data);
  const auto row_at = [&](int64 i) {
    const int64 position = rows.first + i;
    return rows.order ? static_cast<int64>((*rows.order)(static_cast<std::uint64_t>(position))) : position;
  };
  const int64 per_chunk = std::max<int64>(1, kChunkElements / std::max<int64>(1, width));
  team.run(ceil_div(rows.count, per_chunk), [&](int64 chunk) {
    const int64 begin = chunk * per_chunk, end = std::min(rows.count, begin + per_chunk);
    int64 ahead[kPrefetchRows];
    for (int64 i = begin; i < std::min(end, begin + kPrefetchRows); ++i) ahead[i % kPrefetchRows] = row_at(i);
    for (int64 i = begin; i < end; ++i) {
      const From* from = data + ahead[i % kPrefetchRows] * width;
      To* to = out + i * width;
      if (i + kPrefetchRows < end) {
        const int64 next = row_at(i + kPrefetchRows);
        ahead[i % kPrefetchRows] = next;
        __builtin_prefetch(data + next * width);
      }
      if constexpr (std::is_same_v<From, To>) {
        std::memcpy(to, from, static_cast<std::size_t>(width) * sizeof(To));
      } else {
        for (int64 j = 0; j < width; ++j) to[j] = static_cast<To>(from[j]);
      }
    }
  });
}

template <class To>
void gather_to(const SourceArray& array, const RowRange& rows, To* out, ThreadTeam& team) {
  switch (array.type) {
    case ElementType::kUint8:
      return gather_as<std::uint8_t>(array, rows, out, team);
    case ElementType::kInt32:
      return gather_as<std::int32_t>(array, rows, out, team);
    case ElementType::kInt64:
      return gather_as<std::int64_t>(array, rows, out, team);
    case ElementType::kFloat32:
      return gather_as<float>(array, rows, out, team);
    case ElementType::kFloat64:
      return gather_as<double>(array, rows, out, team);
  }
}

}  // namespace

bool convertible(ElementType from, DType to) {
  const bool integer = from == ElementType::kInt32 || from == ElementType::kInt64;
  if (to == DType::kIndex) return integer;
  return to == DType::kReal && !integer;
}

void gather(const SourceArray& array, const RowRange& rows, DType dtype, Real real, std::byte* out,
            ThreadTeam& team) {
  check(convertible(array.type, dtype), "[source] an array's element type does not fit its input");
  check(rows.first >= 0 && rows.first + rows.count <= array.rows, "[source] rows ", rows.first, " to ",
        rows.first + rows.count, " of ", array.rows);
  if (dtype == DType::kIndex)
    gather_to(array, rows, reinterpret_cast<index*>(out), team);
  else if (real == Real::kFloat32)
    gather_to(array, rows, reinterpret_cast<float*>(out), team);
  else
    gather_to(array, rows, reinterpret_cast<double*>(out), team);
}

}  // namespace hotloop
