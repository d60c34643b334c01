// SPDX-License-Identifier: Apache-2.0
#include "runtime/source.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace hotloop {
namespace {

constexpr std::size_t kLine = 64;
// How many rows ahead a random row is asked for, and how much of it: two rows of a few KB cover the latency
// of main memory, and more would push each other out of the queue of outstanding lines.
constexpr int64 kRowsAhead = 2;
constexpr std::size_t kBytesAhead = 4096;

void prefetch(const std::byte* row, std::size_t bytes) {
  for (std::size_t at = 0; at < std::min(bytes, kBytesAhead); at += kLine) __builtin_prefetch(row + at);
}

// Rows of some ten numbers are many and short: a call for each would take longer than their copies.
void copy_bytes(const std::byte* from, std::byte* to, std::size_t bytes) {
  constexpr std::size_t kPiece = 16, kShort = 128;
  if (bytes < kPiece || bytes > kShort) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (std::size_t at = 0; at + kPiece <= bytes; at += kPiece) std::memcpy(to + at, from + at, kPiece);
  std::memcpy(to + bytes - kPiece, from + bytes - kPiece, kPiece);
}

template <class From, class To>
void convert(const std::byte* from, std::byte* to, int64 n) {
  if constexpr (std::is_same_v<From, To>) {
    copy_bytes(from, to, static_cast<std::size_t>(n) * sizeof(To));
  } else {
    const From* x = reinterpret_cast<const From*>(from);
    To* y = reinterpret_cast<To*>(to);
    for (int64 j = 0; j < n; ++j) y[j] = static_cast<To>(x[j]);
  }
}

}  // namespace

template <class From, class To>
Gather::Feed Gather::feed_of(const SourceArray& array, std::byte* out) {
  const auto copy = [](const Feed& feed, const int64* rows, int64 begin, int64 end) {
    if (feed.width == 1) {  // a label: many rows are under way at once by themselves
      const From* x = reinterpret_cast<const From*>(feed.data);
      To* y = reinterpret_cast<To*>(feed.out);
      for (int64 i = begin; i < end; ++i) y[i] = static_cast<To>(x[rows[i]]);
      return;
    }
    const std::size_t out_bytes = static_cast<std::size_t>(feed.width) * sizeof(To);
    const auto row = [&](int64 i) { return feed.data + static_cast<std::size_t>(rows[i]) * feed.bytes; };
    for (int64 i = begin; i < std::min(end, begin + kRowsAhead); ++i) prefetch(row(i), feed.bytes);
    for (int64 i = begin; i < end; ++i) {
      if (i + kRowsAhead < end) prefetch(row(i + kRowsAhead), feed.bytes);
      convert<From, To>(row(i), feed.out + static_cast<std::size_t>(i) * out_bytes, feed.width);
    }
  };
  const auto copy_run = [](const Feed& feed, int64 first, int64 begin, int64 end) {
    const std::size_t out_bytes = static_cast<std::size_t>(feed.width) * sizeof(To);
    convert<From, To>(feed.data + static_cast<std::size_t>(first + begin) * feed.bytes,
                      feed.out + static_cast<std::size_t>(begin) * out_bytes, (end - begin) * feed.width);
  };
  const std::size_t bytes = static_cast<std::size_t>(array.row_size) * sizeof(From);
  return {array.data, out, array.row_size, bytes, copy, copy_run};
}

template <class To>
Gather::Feed Gather::feed_to(const SourceArray& array, std::byte* out) {
  switch (array.type) {
    case ElementType::kUint8:
      return feed_of<std::uint8_t, To>(array, out);
    case ElementType::kInt32:
      return feed_of<std::int32_t, To>(array, out);
    case ElementType::kInt64:
      return feed_of<std::int64_t, To>(array, out);
    case ElementType::kFloat32:
      return feed_of<float, To>(array, out);
    case ElementType::kFloat64:
      return feed_of<double, To>(array, out);
  }
  throw InternalError("[source] unknown element type");
}

bool convertible(ElementType from, DType to) {
  const bool integer = from == ElementType::kInt32 || from == ElementType::kInt64;
  if (to == DType::kIndex) return integer;
  return to == DType::kReal && !integer;
}

void Gather::add(const SourceArray& array, DType dtype, Real real, std::byte* out) {
  check(convertible(array.type, dtype), "[source] an array's element type does not fit its input");
  if (dtype == DType::kIndex)
    feeds_.push_back(feed_to<index>(array, out));
  else if (real == Real::kFloat32)
    feeds_.push_back(feed_to<float>(array, out));
  else
    feeds_.push_back(feed_to<double>(array, out));
  row_elements_ += std::max<int64>(1, array.row_size);
}

void Gather::choose(int64 first, int64 count, const Permutation* order) {
  if (count != count_) rows_per_task_ = ceil_div(even_chunk(count * row_elements_), row_elements_);
  first_ = first;
  count_ = count;
  in_order_ = order == nullptr;
  if (in_order_) return;
  rows_.resize(static_cast<std::size_t>(count));
  unit_.shuffle_rows(*order, first, count, rows_.data());
}

void Gather::run(int64 task) const {
  const int64 begin = task * rows_per_task_, end = std::min(count_, begin + rows_per_task_);
  for (const Feed& feed : feeds_) {
    if (in_order_)
      feed.copy_run(feed, first_, begin, end);
    else
      feed.copy(feed, rows_.data(), begin, end);
  }
}

}  // namespace hotloop
