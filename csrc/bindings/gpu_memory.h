// SPDX-License-Identifier: Apache-2.0
// Memory on a device for hotloop.ops: blocks of a pool, owned by results and by whoever they are lent to.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "runtime/device_library.h"

namespace hotloop {

// Blocks that were given back, for the next call: getting memory from the driver takes a hundred times longer
// than a small kernel. What was lent to somebody else does not come here, because their work on it may still
// be running; work of ours is in the order of one stream.
class ArrayPool {
 public:
  static constexpr std::size_t kKept = std::size_t{256} << 20;  // bytes
  static constexpr std::size_t kRound = 512;

  explicit ArrayPool(std::shared_ptr<const Device> device) : device_(std::move(device)) {}
  ~ArrayPool() { clear(); }
  ArrayPool(const ArrayPool&) = delete;
  ArrayPool& operator=(const ArrayPool&) = delete;

  static std::size_t rounded(std::size_t bytes) { return (bytes + kRound - 1) / kRound * kRound; }

  // `bytes` are rounded. Throws DeviceFault, after everything kept was given back to the driver.
  void* take(std::size_t bytes) {
    const std::lock_guard lock(guard_);
    const auto found = free_.find(bytes);
    if (found != free_.end()) {
      void* address = found->second;
      free_.erase(found);
      kept_ -= bytes;
      return address;
    }
    device_->use();
    void* address = nullptr;
    if (device_->api().allocate(bytes, &address) == kDeviceOk) return address;
    clear();
    const std::string doing = "get " + std::to_string(bytes) + " bytes of device memory";
    device_->require(device_->api().allocate(bytes, &address), doing.c_str());
    return address;
  }

  void give_back(void* address, std::size_t bytes, bool lent) {
    const std::lock_guard lock(guard_);
    if (lent || kept_ + bytes > kKept) return release(address);
    free_.emplace(bytes, address);
    kept_ += bytes;
  }

 private:
  void release(void* address) const {
    (void)device_->api().use(device_->traits().number);
    (void)device_->api().release(address);
  }
  void clear() {
    for (const auto& [bytes, address] : free_) release(address);
    free_.clear();
    kept_ = 0;
  }

  std::shared_ptr<const Device> device_;
  std::mutex guard_;
  std::multimap<std::size_t, void*> free_;
  std::size_t kept_ = 0;
};

// Bytes of a pool for as long as this lives.
class ArrayMemory {
 public:
  ArrayMemory(std::shared_ptr<ArrayPool> pool, std::size_t bytes)
      : pool_(std::move(pool)),
        bytes_(ArrayPool::rounded(bytes)),
        data_(bytes_ > 0 ? pool_->take(bytes_) : nullptr) {}
  ~ArrayMemory() {
    if (data_ != nullptr) pool_->give_back(data_, bytes_, lent_);
  }
  ArrayMemory(const ArrayMemory&) = delete;
  ArrayMemory& operator=(const ArrayMemory&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  void lend() { lent_ = true; }

 private:
  std::shared_ptr<ArrayPool> pool_;
  std::size_t bytes_;
  void* data_;
  bool lent_ = false;
};

}  // namespace hotloop
