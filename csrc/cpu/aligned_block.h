// SPDX-License-Identifier: Apache-2.0
// One zeroed allocation on a cache-line boundary: flat buffers and arenas are each one of these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hotloop {

class AlignedBlock {
 public:
  static constexpr std::size_t kAlign = 64;
  // From here on the block starts on a huge page and asks for more of them: fewer TLB misses.
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  explicit AlignedBlock(std::size_t bytes) : bytes_(bytes) {
#if defined(__linux__)
    if (bytes >= kHugePage) {
      map();
      return;
    }
#endif
    // At least one line, so that an empty block still has an address.
    const std::size_t allocated = bytes > 0 ? bytes : kAlign;
    data_ = static_cast<std::byte*>(::operator new(allocated, std::align_val_t(kAlign)));
    std::memset(data_, 0, allocated);
  }
  ~AlignedBlock() {
#if defined(__linux__)
    if (mapped_bytes_ > 0) {
      munmap(mapped_, mapped_bytes_);
      return;
    }
#endif
    ::operator delete(data_, std::align_val_t(kAlign));
  }
  AlignedBlock(const AlignedBlock&) = delete;
  AlignedBlock& operator=(const AlignedBlock&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
#if defined(__linux__)
  // Pages from the system are zero without being written, and what is never touched takes no memory.
  void map() {
    mapped_bytes_ = bytes_ + kHugePage;  // so that a huge page begins in it
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    data_ = static_cast<std::byte*>(mapped_) + (kHugePage - address % kHugePage) % kHugePage;
    madvise(data_, bytes_, MADV_HUGEPAGE);  // advice: a refusal costs nothing
  }
#endif

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace hotloop
