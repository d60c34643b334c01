// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_source.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

constexpr std::size_t kAlign = 256;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Of a lane at most: several milliseconds of a bus's time, so that what a copy costs to begin does not show.
constexpr std::size_t kLaneBytes = std::size_t{64} << 20;

std::size_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kUint8:
      return 1;
    case ElementType::kInt32:
    case ElementType::kFloat32:
      return 4;
    case ElementType::kInt64:
    case ElementType::kFloat64:
      return 8;
  }
  throw InternalError("[source] unknown element type");
}

// A copy of `bytes` bytes of the host, ready when this returns.
std::shared_ptr<const DeviceBlock> copied(const std::shared_ptr<const Device>& device, const void* from,
                                          std::size_t bytes) {
  auto block = std::make_shared<DeviceBlock>(device, bytes);
  const DeviceQueue queue(device);
  queue.copy(block->data(), from, bytes, CopyKind::kToDevice);
  queue.wait();
  return block;
}

std::size_t row_bytes(const SourceArray& array) {
  return static_cast<std::size_t>(array.row_size) * element_bytes(array.type);
}

// Of all rows that lie there.
std::size_t all_bytes(const SourceArray& array) {
  return static_cast<std::size_t>(array.held) * row_bytes(array);
}

}  // namespace

SharedRows::SharedRows(std::shared_ptr<const Device> device, const SourceArray& array)
    : device_(std::move(device)), array_(array) {
  check(array.numbers == nullptr, "[source] shared rows are all rows of an array");
}

std::size_t SharedRows::missing_bytes() const {
  const std::lock_guard lock(mutex_);
  return block_ || array_.on_device ? 0 : all_bytes(array_);
}

std::shared_ptr<const DeviceBlock> SharedRows::copy() {
  const std::lock_guard lock(mutex_);
  if (!block_ && !array_.on_device) block_ = copied(device_, array_.data, all_bytes(array_));
  return block_;
}

DeviceSource::DeviceSource(std::shared_ptr<const Device> device, const std::vector<Part>& parts,
                           std::optional<std::size_t> budget)
    : device_(std::move(device)) {
  check(parts.size() <= static_cast<std::size_t>(kMaxFeeds), "[source] ", parts.size(),
        " arrays; a device takes up to ", kMaxFeeds);
  device_->use();
  std::size_t free = 0, total = 0;
  if (!budget) device_->require(device_->api().memory_info(&free, &total), "ask for free memory");
  budget_ = budget.value_or(free / 2);
  for (const Part& part : parts) {
    SourceArray array = part.from->array();
    array.numbers = part.numbers;
    if (part.numbers != nullptr) array.rows = part.rows;
    arrays_.push_back(array);
    check(array.rows == rows(), "[source] arrays of ", rows(), " and ", array.rows, " rows");
    row_bytes_ += row_bytes(array);
  }
  if (missing_bytes(parts) <= budget_ && make_resident(parts)) return;
  blocks_.clear();
  numbers_.clear();
  bring_home();
}

DeviceSource::~DeviceSource() { finish_copies(); }

// A pass that was stopped may leave one that nobody waits for.
void DeviceSource::finish_copies() const {
  if (copies_) (void)device_->api().stream_wait(copies_->stream());
}

std::size_t DeviceSource::missing_bytes(const std::vector<Part>& parts) const {
  std::size_t bytes = 0;
  const int64* last = nullptr;
  for (const Part& part : parts) {
    bytes += part.from->missing_bytes();
    if (part.numbers != nullptr && part.numbers != last)
      bytes += static_cast<std::size_t>(part.rows) * sizeof(int64);
    last = part.numbers;
  }
  return bytes;
}

// Whether there was room.
bool DeviceSource::make_resident(const std::vector<Part>& parts) {
  std::vector<const std::byte*> places;
  try {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::shared_ptr<const DeviceBlock> copy = parts[i].from->copy();
      if (copy) blocks_.push_back(copy);
      places.push_back(copy ? copy->data() : parts[i].from->array().data);
      const int64* numbers = parts[i].numbers;
      if (numbers == nullptr || (i > 0 && numbers == parts[i - 1].numbers))
        numbers_.push_back(numbers == nullptr ? nullptr : numbers_.back());
      else
        numbers_.push_back(copied(device_, numbers, static_cast<std::size_t>(parts[i].rows) * sizeof(int64)));
    }
  } catch (const DeviceFault& fault) {
    if (fault.status() == kDeviceMemory) return false;
    throw;
  }
  places_ = std::move(places);
  return true;
}

// Rows that the host gathers have to lie on the host, all columns of them.
void DeviceSource::bring_home() {
  const DeviceQueue queue(device_);
  for (SourceArray& array : arrays_) {
    if (!array.on_device) continue;
    at_home_.emplace_back(all_bytes(array));
    queue.copy(at_home_.back().data(), array.data, all_bytes(array), CopyKind::kToHost);
    queue.wait();
    array.data = at_home_.back().data();
    array.on_device = false;
  }
}

std::size_t DeviceSource::n_bytes() const {
  std::size_t n = 0;
  for (const auto& block : blocks_) n += block->bytes();
  for (std::size_t i = 0; i < numbers_.size(); ++i)
    n += numbers_[i] && (i == 0 || numbers_[i] != numbers_[i - 1]) ? numbers_[i]->bytes() : 0;
  for (const auto& lane : lanes_) n += lane ? lane->block.bytes() : 0;
  return n;
}

// Two lanes within the budget, but at least of a batch each.
void DeviceSource::make_lanes(int64 batch_size) {
  const std::size_t batch_bytes = static_cast<std::size_t>(batch_size) * row_bytes_;
  const std::size_t most = std::min(kLaneBytes, budget_ / 2);
  const int64 batches = std::max<int64>(1, static_cast<int64>(most / std::max<std::size_t>(1, batch_bytes)));
  if (lane_rows_ >= batch_size && lane_rows_ % batch_size == 0 && lane_rows_ <= batches * batch_size) return;
  const int64 lane_rows = batches * batch_size;
  std::size_t bytes = 0;
  for (const SourceArray& array : arrays_)
    bytes += aligned(static_cast<std::size_t>(lane_rows) * row_bytes(array));
  lane_rows_ = 0;
  finish_copies();
  if (!copies_) copies_ = std::make_unique<DeviceQueue>(device_);
  for (auto& lane : lanes_) lane.reset();
  for (auto& lane : lanes_) lane = std::make_unique<Lane>(device_, bytes);
  lane_rows_ = lane_rows;
}

DeviceFeeder::DeviceFeeder(DeviceSource& source, const DeviceQueue& queue, DeviceStep* step,
                           const Permutation* order, std::vector<std::pair<void*, bool>> outs,
                           int64 batch_size, int64 first, int64 last)
    : source_(source),
      queue_(queue),
      step_(step),
      order_(order),
      outs_(std::move(outs)),
      batch_size_(batch_size),
      first_(first),
      last_(last) {
  if (!source_.resident()) source_.make_lanes(batch_size);
}

int64 DeviceFeeder::rows_end(int64 batch) const { return std::min(batch * batch_size_, source_.rows()); }

DeviceFeeds DeviceFeeder::feeds_of(int64 first_row, const std::vector<const std::byte*>& data) const {
  DeviceFeeds feeds;
  feeds.first = first_row;
  feeds.n = static_cast<std::int32_t>(data.size());
  for (std::size_t i = 0; i < data.size(); ++i) {
    const SourceArray& array = source_.arrays_[i];
    feeds.at[i] = {data[i],        nullptr, outs_[i].first, array.row_size, static_cast<FeedType>(array.type),
                   outs_[i].second};
  }
  return feeds;
}

DeviceFeeds DeviceFeeder::feeds() const {
  DeviceFeeds feeds = feeds_of(0, source_.places_);
  for (std::size_t i = 0; i < source_.numbers_.size(); ++i)
    if (source_.numbers_[i])
      feeds.at[i].numbers = reinterpret_cast<const int64*>(source_.numbers_[i]->data());
  return feeds;
}

int64 DeviceFeeder::ready(int64 batch) {
  if (source_.resident()) return last_ - batch;
  const int64 piece = (batch - first_) / lane_batches();
  const int64 end = std::min(last_, first_ + (piece + 1) * lane_batches());
  if (piece == piece_) return end - batch;
  if (piece_ >= 0) lane(piece_).trained.set(queue_);
  if (first_ + gathered_ < end) gather(first_ + gathered_, end - first_ - gathered_);
  piece_ = piece;
  DeviceSource::Lane& at = lane(piece);
  at.copied.hold_back(queue_);
  std::vector<const std::byte*> data;
  const std::byte* next = at.block.data();
  for (const SourceArray& array : source_.arrays_) {
    data.push_back(next);
    next += aligned(static_cast<std::size_t>(source_.lane_rows_) * row_bytes(array));
  }
  const DeviceFeeds feeds = feeds_of(batch * batch_size_, data);
  at.fed.wait();  // two pieces ago
  std::memcpy(at.feeds.data(), &feeds, sizeof feeds);
  queue_.copy(&step_->feeds, at.feeds.data(), sizeof feeds, CopyKind::kToDevice);
  at.fed.set(queue_);
  return end - batch;
}

// One piece ahead at most, since the other lane is in use.
void DeviceFeeder::gather_ahead(int64 batches) {
  if (source_.resident()) return;
  const int64 room = std::min(last_ - first_, (piece_ + 2) * lane_batches()) - gathered_;
  if (room > 0) gather(first_ + gathered_, std::min(batches, room));
}

void DeviceFeeder::gather(int64 batch, int64 count) {
  while (count > 0) {
    const int64 piece = (batch - first_) / lane_batches();
    const int64 begin = first_ + piece * lane_batches(), end = std::min(last_, begin + lane_batches());
    const int64 now = std::min(count, end - batch);
    DeviceSource::Lane& to = lane(piece);
    if (batch == begin) to.copied.wait();  // what it held before has left it
    const int64 row = rows_end(batch), n = rows_end(batch + now) - row, at = row - rows_end(begin);
    rows_.resize(static_cast<std::size_t>(n));
    if (order_ != nullptr)
      find_isa("").shuffle_rows(*order_, row, n, rows_.data());
    else
      std::iota(rows_.begin(), rows_.end(), row);
    std::byte* out = to.pinned.data();
    for (const SourceArray& array : source_.arrays_) {
      const std::size_t each = row_bytes(array);
      gather_array(array, row, out + static_cast<std::size_t>(at) * each);
      out += aligned(static_cast<std::size_t>(source_.lane_rows_) * each);
    }
    gathered_ += now;
    batch += now;
    count -= now;
    if (batch == end) send(piece);
  }
}

// The rows of one array at positions `rows_` of the source, `first` being the first of them in order.
void DeviceFeeder::gather_array(const SourceArray& array, int64 first, std::byte* out) const {
  const std::size_t each = row_bytes(array);
  if (order_ == nullptr && array.numbers == nullptr) {
    std::memcpy(out, array.data + static_cast<std::size_t>(first) * each, rows_.size() * each);
    return;
  }
  for (const int64 row : rows_) {
    const int64 from = array.numbers == nullptr ? row : array.numbers[row];
    std::memcpy(out, array.data + static_cast<std::size_t>(from) * each, each);
    out += each;
  }
}

// On a stream of its own; behind the last batch that read what the lane held before.
void DeviceFeeder::send(int64 piece) {
  DeviceSource::Lane& at = lane(piece);
  at.trained.hold_back(*source_.copies_);
  source_.copies_->copy(at.block.data(), at.pinned.data(), at.block.bytes(), CopyKind::kToDevice);
  at.copied.set(*source_.copies_);
}

}  // namespace hotloop
