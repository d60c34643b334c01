// SPDX-License-Identifier: Apache-2.0
// The emulator behind portable_host.h: the blocks of a launch run one after the other, the threads of a block
// as fibers that change places only where one has to wait. All state is the machine's (machine.h); one launch
// runs at a time, whichever thread of the process asked for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace hotloop::simt {

struct Dim3 {
  unsigned x, y, z;
  constexpr Dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// What a real GPU would have answered with an error, a hang or garbage.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A place in a kernel, taken where one of the functions of portable.h is called.
struct Site {
  const char* what;
  const char* file;
  int line;
};

struct Launch {
  const char* name;  // the function that launches: NAME_launch
  const char* file;
  int line;
  Dim3 grid, block;
  std::size_t shared_bytes;
};

// One entry of a queue: a kernel if what.name is set, else a copy or a fill by the host.
struct Command {
  Launch what;
  std::function<void()> body;  // of one thread, or of the whole copy
};

// Blocks by the serial numbers that they ran under, the end not among them.
struct BlockRange {
  std::uint64_t begin = 0, end = 0;
};

// Runs one launch to its end. Throws Fault; the emulator can be used again afterwards. `unordered` are blocks
// of launches that ran before and might as well have run at the same time.
BlockRange run(const Launch& launch, const std::function<void()>& body,
               std::vector<BlockRange> unordered = {});
// Runs a command now, keeping the first fault.
BlockRange perform(const Command& command, std::vector<BlockRange> unordered = {});
// What launch() in kernels' host code does: gives a command to a stream, or to all at once if that is null.
struct Queue;
void submit(Queue* queue, Command command);
// The first fault since the last call, or an empty string.
std::string take_fault();

// The indices of the thread that runs.
extern Dim3 thread_index, block_index, block_dim, grid_dim;
extern int lane, warp;

[[noreturn]] void fault(const Site& site, const std::string& what);

// ---- the block

void block_barrier(const Site& site);
bool block_barrier_or(const Site& site, bool any);

// ---- the warp

// The lanes' own pointers, null where a lane of the mask has left the kernel or never was.
using Lanes = void* const (&)[32];
using Collective = void (*)(Lanes mine);
// Waits for every lane of the mask that has not left the kernel; the last to arrive runs `all` for them.
void warp_collective(const Site& site, unsigned mask, void* mine, Collective all);
// The same for instructions that need all 32 lanes.
void whole_warp(const Site& site, void* mine, Collective all);
void warp_barrier(const Site& site, unsigned mask);

// ---- memory

// One HL_SHARED array of a kernel: a place in the block's shared memory from its first use in the block on.
struct Zone {
  const char* name;
  std::size_t bytes;
  std::uint64_t block = 0;  // for which `address` holds
  void* address = nullptr;
};
extern std::uint64_t block_serial;  // of all blocks ever run; never 0
void place(Zone& zone);
inline void* shared(Zone& zone) {
  if (zone.block != block_serial) place(zone);
  return zone.address;
}
void* dynamic_shared();

void copy_async(const Site& site, void* to, const void* from, std::size_t bytes, bool ok);
void commit_copies();
void wait_copies(std::size_t groups_left);
void check_aligned(const Site& site, const void* p, std::size_t bytes);
void check_shared(const Site& site, const void* p, std::size_t bytes);
int atomic_add(int* p, int v);
void fence();

}  // namespace hotloop::simt
