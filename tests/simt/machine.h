// SPDX-License-Identifier: Apache-2.0
// The emulator's own state: the threads of the block that runs, its shared memory, and the fibers they run
// on. One object, because a fiber must find it without being told.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "simt/emulator.h"
#include "simt/fiber.h"
#include "simt/mode.h"

namespace hotloop::simt {

inline constexpr unsigned kLanes = 32;
inline constexpr unsigned kMaxThreads = 1024;
inline constexpr std::size_t kMaxShared = 227 * 1024;  // of a block, on the largest of our targets
inline constexpr std::size_t kMaxStaticShared =
    48 * 1024;  // declared in the kernel, or taken without an opt-in

enum class State : std::uint8_t { kWaitsToStart, kReady, kAtBarrier, kInWarp, kDone };

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
  bool ok;  // else zeros
};

struct Thread {
  Dim3 index;
  unsigned lane, warp;
  State state;
  Fiber* fiber;  // where it stopped
  Site site;     // what it waits in
  // While in a warp's collective.
  unsigned mask;
  bool whole;  // the instruction needs all 32 lanes
  void* mine;
  Collective all;
  // Asynchronous copies, oldest first: those in groups, then those of the open group.
  std::vector<Copy> copies;
  std::vector<std::size_t> groups;  // copies in each
};

struct Warp {
  unsigned live;     // lanes that have not left the kernel
  unsigned waiting;  // lanes in a collective
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> order;  // in which threads start and go on
  unsigned started, done, at_barrier;
  Site barrier;         // of the first to arrive
  std::uint64_t epoch;  // barriers passed
  bool any, any_at[2];  // sync_or: so far, and of the last barriers by parity
};

struct Machine {
  Mode mode;
  Launch launch;
  const std::function<void()>* body = nullptr;
  Block block;
  Thread* current = nullptr;  // null while the scheduler runs
  Fiber* running = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  std::string fault;                     // of the launch
  std::atomic<std::uint64_t> random{0};  // state of next_random
};
extern Machine machine;

// Runs the block that machine.launch, machine.block's threads and block_index describe.
void run_block();

// Shared memory of the block: before its first thread, after its last.
void open_shared();
void close_shared();
bool in_shared(const void* p, std::size_t bytes);

// From a thread: the launch ends here with that text.
[[noreturn]] void give_up_launch(const std::string& text);

// For reports: "sync at norm_cuda.cu:40", "(1, 0, 0)".
std::string text_of(const Site& site);
std::string text_of(const Dim3& d);
// Of 64 bits, by the seed of the mode.
std::uint64_t next_random();
void shuffle(std::vector<unsigned>& order);

}  // namespace hotloop::simt
