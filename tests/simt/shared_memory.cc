// SPDX-License-Identifier: Apache-2.0
// A block's shared memory: one piece in which arrays get their place at first use, with a fence after each
// whose bytes are looked at when the block ends; asynchronous copies into it; alignment.
#include <algorithm>
#include <cstring>
#include <string>

#include "simt/device_memory.h"
#include "simt/machine.h"
#include "simt/race.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace hotloop::simt {
namespace {

constexpr std::size_t kAlign = 128;     // as HL_SHARED promises
constexpr std::size_t kFence = kAlign;  // after each array
constexpr unsigned char kFenceByte = 0xA5;
constexpr std::size_t kRoom = 2 * kMaxShared + 64 * kFence;
constexpr Site kDynamic{"HL_DYNAMIC_SHARED", "launch", 0};

alignas(1024) unsigned char memory[kRoom];
struct Array {
  const char* name;
  std::size_t begin, end;
};
std::vector<Array> arrays;  // of this block, in order
std::size_t static_bytes;   // as the compiler for the device would count them

void guard(std::size_t begin) {
  std::memset(memory + begin, kFenceByte, kFence);
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(memory + begin, kFence);
#endif
}

void* add(const char* name, std::size_t bytes) {
  const std::size_t last = arrays.empty() ? 0 : arrays.back().end + kFence;
  const std::size_t begin = (last + kAlign - 1) / kAlign * kAlign;
  if (begin + bytes + kFence > kRoom)
    fault(kDynamic, "shared arrays for more than the emulator has room for");
  arrays.push_back({name, begin, begin + bytes});
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(memory + begin, bytes);
#endif
  if (machine.mode.poison) std::memset(memory + begin, 0xFF, bytes);
  guard(begin + bytes);
  return memory + begin;
}

}  // namespace

void open_shared() {
  arrays.clear();
  static_bytes = 0;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(memory, kRoom);
#endif
  if (machine.launch.shared_bytes) add("the dynamic array", machine.launch.shared_bytes);
}

void close_shared() {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(memory, kRoom);
#endif
  for (const Array& a : arrays)
    for (std::size_t i = 0; i < kFence; ++i)
      if (memory[a.end + i] != kFenceByte)
        fault({a.name, machine.launch.file, machine.launch.line},
              "the block wrote past the end of this shared array, " + std::to_string(i) + " bytes behind it");
}

void place(Zone& zone) {
  constexpr std::size_t kUnit = 16;
  const Site site{zone.name, machine.launch.file, machine.launch.line};
  static_bytes += (zone.bytes + kUnit - 1) / kUnit * kUnit;
  const std::size_t dynamic_bytes = machine.launch.shared_bytes;
  if (static_bytes > kMaxStaticShared)
    fault(site,
          "the kernel declares more than 48 KB of shared memory, which does not compile for the device; ask "
          "launch() for it");
  if (dynamic_bytes <= kMaxStaticShared && static_bytes + dynamic_bytes > kMaxStaticShared)
    fault(site, "declared and dynamic shared memory are " + std::to_string(static_bytes + dynamic_bytes) +
                    " bytes together, which needs an opt-in that launch() gives only where more than 48 KB "
                    "are dynamic");
  if (static_bytes + dynamic_bytes > kMaxShared)
    fault(site, "a block's shared memory, got " + std::to_string(static_bytes + dynamic_bytes) +
                    " bytes; allowed " + std::to_string(kMaxShared));
  zone.address = add(zone.name, zone.bytes);
  zone.block = block_serial;
}

void* dynamic_shared() {
  if (machine.launch.shared_bytes == 0) fault(kDynamic, "the launch asked for no dynamic shared memory");
  return memory;
}

bool in_shared(const void* p, std::size_t bytes) {
  const auto* const q = static_cast<const unsigned char*>(p);
  return std::any_of(arrays.begin(), arrays.end(),
                     [&](const Array& a) { return q >= memory + a.begin && q + bytes <= memory + a.end; });
}

std::string place_in_shared(const void* p) {
  const auto* const q = static_cast<const unsigned char*>(p);
  for (const Array& a : arrays)
    if (q >= memory + a.begin && q < memory + a.end + kFence)
      return "shared memory, " + std::to_string(q - memory - static_cast<std::ptrdiff_t>(a.begin)) +
             " bytes into " + a.name;
  return {};
}

Range shared_range() { return {memory, kRoom}; }

void check_shared(const Site& site, const void* p, std::size_t bytes) {
  if (!in_shared(p, bytes)) fault(site, "an address that is not in an array of the block's shared memory");
}

void check_aligned(const Site& site, const void* p, std::size_t bytes) {
  const auto off = reinterpret_cast<std::uintptr_t>(p) % bytes;
  if (off)
    fault(site, "an address must be a multiple of " + std::to_string(bytes) + ", got one that is " +
                    std::to_string(off) + " past");
}

namespace {

void land(const Copy& c) {
  race::wrote(c.to, c.bytes, race::Kind::kCopy);
  if (c.ok) {
    race::read(c.from, c.bytes, race::Kind::kCopy);
    std::memcpy(c.to, c.from, c.bytes);
  } else {
    std::memset(c.to, 0, c.bytes);
  }
}

}  // namespace

void copy_async(const Site& site, void* to, const void* from, std::size_t bytes, bool ok) {
  check_aligned(site, to, bytes);
  check_aligned(site, from, bytes);
  check_shared(site, to, bytes);
  const Copy c{to, from, bytes, ok};
  if (!machine.mode.late_copies) return land(c);
  race::wrote(to, bytes, race::Kind::kUnderWay);
  if (ok) race::read(from, bytes, race::Kind::kUnderWay);
  if (machine.mode.poison) std::memset(to, 0xFF, bytes);
  machine.current->copies.push_back(c);
}

void commit_copies() {
  Thread& t = *machine.current;
  std::size_t grouped = 0;
  for (const std::size_t n : t.groups) grouped += n;
  t.groups.push_back(t.copies.size() - grouped);
}

void wait_copies(std::size_t groups_left) {
  Thread& t = *machine.current;
  if (t.groups.size() <= groups_left) return;
  const auto groups = static_cast<std::ptrdiff_t>(t.groups.size() - groups_left);
  std::size_t copies = 0;
  for (std::ptrdiff_t i = 0; i < groups; ++i) copies += t.groups[static_cast<std::size_t>(i)];
  const auto end = t.copies.begin() + static_cast<std::ptrdiff_t>(copies);
  std::for_each(t.copies.begin(), end, land);
  t.copies.erase(t.copies.begin(), end);
  t.groups.erase(t.groups.begin(), t.groups.begin() + groups);
}

}  // namespace hotloop::simt
