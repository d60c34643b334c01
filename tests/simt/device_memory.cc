// SPDX-License-Identifier: Apache-2.0
// First fit over one reserved range; under AddressSanitizer its own allocator, whose red zones it watches.
#include "simt/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace hotloop::simt {
namespace {

constexpr std::size_t kAlign = 256, kFence = 256;
constexpr unsigned char kPoison = 0xFF, kFenceByte = 0xA5;

std::mutex guard;
std::map<std::size_t, std::size_t> blocks;  // offset in the range -> bytes
std::size_t taken = 0;

std::size_t room_for(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign + kFence; }

unsigned char* arena() {
#ifdef __SANITIZE_ADDRESS__
  return nullptr;  // offsets are addresses
#else
  static unsigned char* const base = [] {
    void* const p = mmap(nullptr, kDeviceMemory, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<unsigned char*>(p);
  }();
  return base;
#endif
}

std::size_t offset_of(const void* p) {
  return static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(p) -
                                  reinterpret_cast<std::uintptr_t>(arena()));
}

unsigned char* find_room(std::size_t bytes) {
  if (taken + room_for(bytes) > kDeviceMemory) return nullptr;
#ifdef __SANITIZE_ADDRESS__
  void* p = nullptr;
  return posix_memalign(&p, kAlign, bytes) == 0 ? static_cast<unsigned char*>(p) : nullptr;
#else
  std::size_t at = 0;
  for (const auto& [offset, size] : blocks) {
    if (offset - at >= room_for(bytes)) break;
    at = offset + room_for(size);
  }
  return at + room_for(bytes) <= kDeviceMemory ? arena() + at : nullptr;
#endif
}

}  // namespace

void* allocate(std::size_t bytes) {
  const std::lock_guard lock(guard);
  if (bytes > kDeviceMemory) return nullptr;
  unsigned char* const p = find_room(bytes);
  if (!p) return nullptr;
  std::memset(p, kPoison, bytes);
#ifndef __SANITIZE_ADDRESS__
  std::memset(p + bytes, kFenceByte, room_for(bytes) - bytes);
#endif
  blocks[offset_of(p)] = bytes;
  taken += room_for(bytes);
  return p;
}

std::string release(void* address) {
  if (!address) return {};
  const std::lock_guard lock(guard);
  const auto found = blocks.find(offset_of(address));
  if (found == blocks.end()) return "an address is released that is of no block of device memory";
  const std::size_t bytes = found->second;
  blocks.erase(found);
  taken -= room_for(bytes);
  std::string text;
#ifdef __SANITIZE_ADDRESS__
  std::free(address);
#else
  const auto* const end = static_cast<unsigned char*>(address) + bytes;
  const auto* const fence_end = static_cast<unsigned char*>(address) + room_for(bytes);
  const auto* const hurt = std::find_if(end, fence_end, [](unsigned char b) { return b != kFenceByte; });
  if (hurt != fence_end)
    text = "a block of " + std::to_string(bytes) + " bytes of device memory was written " +
           std::to_string(hurt - end) + " bytes past its end";
#endif
  return text;
}

std::size_t memory_left() {
  const std::lock_guard lock(guard);
  return kDeviceMemory - taken;
}

bool on_device(const void* p, std::size_t bytes) {
  const std::lock_guard lock(guard);
  const std::size_t at = offset_of(p);
  const auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return at + bytes <= begin + size;
}

Range device_range() { return {arena(), kDeviceMemory}; }

std::string place_in_memory(const void* p) {
  if (std::string shared = place_in_shared(p); !shared.empty()) return shared;
  const std::lock_guard lock(guard);
  const std::size_t at = offset_of(p);
  auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) return "memory that is not the device's";
  --after;
  return "device memory, " + std::to_string(at - after->first) + " bytes into a block of " +
         std::to_string(after->second);
}

}  // namespace hotloop::simt
