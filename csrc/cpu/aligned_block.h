// SPDX-License-Identifier: Apache-2.0
// One zeroed allocation on a cache-line boundary: flat buffers and arenas are each one of these.
#pragma once

#include <cstddef>
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
    align_ = bytes >= kHugePage ? kHugePage : kAlign;
    // At least one line, so that an empty block still has an address.
    const std::size_t allocated = bytes > 0 ? bytes : kAlign;
    data_ = static_cast<std::byte*>(::operator new(allocated, std::align_val_t(align_)));
#if defined(__linux__)
    if (bytes >= kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: a refusal costs nothing
#endif
    std::memset(data_, 0, allocated);
  }
  ~AlignedBlock() { ::operator delete(data_, std::align_val_t(align_)); }
  AlignedBlock(const AlignedBlock&) = delete;
  AlignedBlock& operator=(const AlignedBlock&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0, align_ = kAlign;
};

}  // namespace hotloop
