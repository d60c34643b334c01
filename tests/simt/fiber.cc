// SPDX-License-Identifier: Apache-2.0
// The switch between stacks, by hand for the two processor families that tests run on.
#include "simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// hotloop_simt_switch(save, to): pushes the registers that belong to the caller, leaves the stack's pointer
// in *save, takes `to` for it and pops. What it returns to is on the new stack.
extern "C" __attribute__((visibility("hidden"))) void hotloop_simt_switch(void** save, void* to);

#if defined(__x86_64__)
asm(R"(
  .text
  .p2align 4
  .globl hotloop_simt_switch
  .hidden hotloop_simt_switch
  .type hotloop_simt_switch, @function
hotloop_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size hotloop_simt_switch, .-hotloop_simt_switch
)");
namespace {
// Six registers, the address to return to, and one word more: a function expects to begin 8 bytes off a
// boundary of 16.
constexpr std::size_t kFrameWords = 8, kReturnWord = 6;
}  // namespace
#elif defined(__aarch64__)
asm(R"(
  .text
  .p2align 4
  .globl hotloop_simt_switch
  .hidden hotloop_simt_switch
  .type hotloop_simt_switch, %function
hotloop_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size hotloop_simt_switch, .-hotloop_simt_switch
)");
namespace {
// Twelve general and eight vector registers; the last general one, x30, is the address to return to.
constexpr std::size_t kFrameWords = 20, kReturnWord = 11;
}  // namespace
#else
#error "the emulator of CUDA has no switch between stacks for this processor: write one here"
#endif

namespace hotloop::simt {
namespace {

void* scheduler_pointer = nullptr;

#ifdef __SANITIZE_ADDRESS__
// The sanitizer keeps bounds and a fake stack for each stack and must hear of every switch.
const void* scheduler_stack = nullptr;
std::size_t scheduler_bytes = 0;
void* scheduler_fake = nullptr;
#endif

void (*main_of_new_fiber)() = nullptr;

void begin() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
  main_of_new_fiber();
  std::abort();
}

}  // namespace

Fiber::Fiber() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* base = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  mprotect(base, page, PROT_NONE);  // a stack that overflows ends there and not in its neighbour
  stack_ = static_cast<char*>(base) + page;
}

Fiber::~Fiber() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  munmap(stack_ - page, kStackBytes + page);
}

void Fiber::enter(void (*main)()) {
  if (!pointer_) {
    auto* const frame = reinterpret_cast<std::uintptr_t*>(stack_ + kStackBytes) - kFrameWords;
    std::memset(frame, 0, kFrameWords * sizeof *frame);
    frame[kReturnWord] = reinterpret_cast<std::uintptr_t>(&begin);
    pointer_ = frame;
    main_of_new_fiber = main;
  }
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&scheduler_fake, stack_, kStackBytes);
#endif
  hotloop_simt_switch(&scheduler_pointer, pointer_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

void Fiber::leave() {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_bytes);
#endif
  hotloop_simt_switch(&pointer_, scheduler_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_bytes);
#endif
}

void Fiber::abandon() {
  pointer_ = nullptr;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
}

}  // namespace hotloop::simt
