// SPDX-License-Identifier: Apache-2.0
// Where a device's batches come from. Arrays that lie there are read in place, and those that fit are copied
// there as a whole; others come in pieces of whole batches through two buffers: while one trains, the host
// gathers the next and copies it. Sources of parts of one data set share the copy and have the numbers of
// their rows there.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/shuffle.h"
#include "runtime/device_library.h"
#include "runtime/source.h"

namespace hotloop {

// All rows of an array, and the one copy of them on a device, made when a source first asks for it. Sources
// may ask from several threads.
class SharedRows {
 public:
  SharedRows(std::shared_ptr<const Device> device, const SourceArray& array);
  const SourceArray& array() const { return array_; }
  // Bytes that the copy would take; 0 if it is there, or the array itself is.
  std::size_t missing_bytes() const;
  // Null for an array that lies on the device. Throws DeviceFault.
  std::shared_ptr<const DeviceBlock> copy();

 private:
  std::shared_ptr<const Device> device_;
  SourceArray array_;
  mutable std::mutex mutex_;
  std::shared_ptr<const DeviceBlock> block_;
};

class DeviceSource {
 public:
  // Rows `numbers` of an array; null: all of them.
  struct Part {
    std::shared_ptr<SharedRows> from;
    const int64* numbers = nullptr;
    int64 rows = 0;
  };
  // The arrays and numbers are held by the caller. Those of the host are copied now if what is not there yet
  // takes no more than `budget` bytes (without one: half of what is free), and then changes to them are not
  // seen; else all are streamed, those of the device from a copy on the host. Throws DeviceFault.
  DeviceSource(std::shared_ptr<const Device> device, const std::vector<Part>& parts,
               std::optional<std::size_t> budget);

  ~DeviceSource();
  DeviceSource(const DeviceSource&) = delete;
  DeviceSource& operator=(const DeviceSource&) = delete;

  const Device& device() const { return *device_; }
  const std::vector<SourceArray>& arrays() const { return arrays_; }
  int64 rows() const { return arrays_.empty() ? 0 : arrays_[0].rows; }
  bool resident() const { return !places_.empty() || arrays_.empty(); }
  std::size_t n_bytes() const;  // on the device, shared ones included

 private:
  friend class DeviceFeeder;
  // One of the two ways in of rows that are not resident.
  struct Lane {
    Lane(const std::shared_ptr<const Device>& device, std::size_t bytes)
        : pinned(device, bytes),
          block(device, bytes),
          feeds(device, sizeof(DeviceFeeds)),
          fed(device),
          copied(device),
          trained(device) {}
    PinnedBlock pinned;
    DeviceBlock block;
    PinnedBlock feeds;  // what the step block is told of this piece
    DeviceMark fed, copied, trained;
  };
  std::size_t missing_bytes(const std::vector<Part>& parts) const;
  bool make_resident(const std::vector<Part>& parts);
  void bring_home();
  void finish_copies() const;
  void make_lanes(int64 batch_size);

  std::shared_ptr<const Device> device_;
  std::vector<SourceArray> arrays_;
  std::size_t row_bytes_ = 0, budget_ = 0;
  std::vector<const std::byte*> places_;  // of each array on the device; none if they are streamed
  std::vector<std::shared_ptr<const DeviceBlock>> blocks_;   // what of them are copies
  std::vector<std::shared_ptr<const DeviceBlock>> numbers_;  // of each one's rows; null: all
  std::vector<std::vector<std::byte>> at_home_;              // the device's arrays, where all are streamed
  std::unique_ptr<Lane> lanes_[2];
  std::unique_ptr<DeviceQueue> copies_;
  int64 lane_rows_ = 0;  // room of a lane
};

// Feeds one pass: batches [first, last) of a source, in that order.
class DeviceFeeder {
 public:
  // `order` may be null: rows as they come. `outs`: for each array the input's address, and whether it holds
  // indices.
  DeviceFeeder(DeviceSource& source, const DeviceQueue& queue, DeviceStep* step, const Permutation* order,
               std::vector<std::pair<void*, bool>> outs, int64 batch_size, int64 first, int64 last);

  // What the step block holds at the start of the pass.
  DeviceFeeds feeds() const;
  bool shuffles() const { return order_ != nullptr && source_.resident(); }
  // Makes batch `batch` ready on the queue; how many batches from it on are.
  int64 ready(int64 batch);
  // Gathers so many batches ahead, as far as there is room.
  void gather_ahead(int64 batches);

 private:
  int64 lane_batches() const { return source_.lane_rows_ / batch_size_; }
  DeviceSource::Lane& lane(int64 piece) const { return *source_.lanes_[piece % 2]; }
  int64 rows_end(int64 batch) const;
  DeviceFeeds feeds_of(int64 first_row, const std::vector<const std::byte*>& data) const;
  void gather(int64 batch, int64 count);
  void gather_array(const SourceArray& array, int64 first, std::byte* out) const;
  void send(int64 piece);

  DeviceSource& source_;
  const DeviceQueue& queue_;
  DeviceStep* step_;
  const Permutation* order_;
  std::vector<std::pair<void*, bool>> outs_;
  int64 batch_size_, first_, last_;
  int64 piece_ = -1;    // that the queue works on
  int64 gathered_ = 0;  // batches in lanes
  std::vector<int64> rows_;
};

}  // namespace hotloop
