// SPDX-License-Identifier: Apache-2.0
// Memory of the device: a range of addresses of its own, so that accesses to it can be told from others, with
// bits that are no number in what is new and a fence behind every block that is looked at when the block is
// released.
#pragma once

#include <cstddef>
#include <string>

namespace hotloop::simt {

struct Range {
  const void* begin;
  std::size_t bytes;
};
inline constexpr std::size_t kDeviceMemory = std::size_t{4} << 30;

// A multiple of 256; null if there is no room.
void* allocate(std::size_t bytes);
// Empty, or what is wrong: an address that allocate() did not give, a block that was written past its end.
std::string release(void* address);
std::size_t memory_left();
// Whether all of it lies in one block of the device's memory.
bool on_device(const void* p, std::size_t bytes);
Range device_range();
Range shared_range();

// "12 bytes into the shared array tile", "device memory, 12 bytes into a block of 400".
std::string place_in_memory(const void* p);
// Of the shared arrays; empty if it is not in one.
std::string place_in_shared(const void* p);

}  // namespace hotloop::simt
