// SPDX-License-Identifier: Apache-2.0
// A stack that code can be left on and come back to: what lets one thread of the processor be the 1024
// threads of a block. The switch saves what the calling convention says that a callee keeps and nothing else;
// ucontext asks the kernel for the signal mask each time and costs twenty times as much.
#pragma once

#include <cstddef>

namespace hotloop::simt {

class Fiber {
 public:
  // Room for a kernel's locals in an unoptimised, sanitised build; only pages that are touched exist.
  static constexpr std::size_t kStackBytes = 256 * 1024;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From the scheduler: go on where the fiber left off, or at the top of `main`, which must never return.
  void enter(void (*main)());
  // From the fiber: back to the scheduler.
  void leave();
  // Whatever was on the stack is never gone back to.
  void abandon();
  bool holds(const void* p) const { return p >= stack_ && p < stack_ + kStackBytes; }

 private:
  char* stack_;
  void* pointer_ = nullptr;  // of the stack while the fiber is left; null before the first entry
};

}  // namespace hotloop::simt
