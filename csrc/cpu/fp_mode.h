// SPDX-License-Identifier: Apache-2.0
// Denormals are flushed while kernels run (Adam's moments decay into them, and they cost 100 cycles each)
// and the caller's floating-point mode comes back afterwards.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace hotloop {

class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    __asm__ __volatile__("msr fpcr, %0" ::"r"(saved_ | kFlush));
  }
  ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" ::"r"(saved_)); }

 private:
  static constexpr unsigned long kFlush = 1ul << 24;
  unsigned long saved_;
#else
  FlushDenormals() {}
  ~FlushDenormals() {}

 public:
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace hotloop
