// SPDX-License-Identifier: Apache-2.0
// Launches: the limits that a GPU has, blocks in the order of the mode, and what is left of a fault.
#include "simt/emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>

#include "simt/machine.h"
#include "simt/race.h"

namespace hotloop::simt {

Machine machine;
Dim3 thread_index, block_index, block_dim, grid_dim;
int lane, warp;
std::uint64_t block_serial = 0;

namespace {

std::mutex one_launch;  // guards the machine
std::mutex one_fault;
std::string first_fault;
bool mode_is_set = false;

void keep(const char* what) {
  const std::lock_guard lock(one_fault);
  if (first_fault.empty()) first_fault = what;
}

// Limits of every architecture since sm_75 but for shared memory, which is sm_90's.
void check_limits(const Launch& l) {
  const std::string name = "[" + std::string(l.name) + "] a launch's ";
  const auto refuse = [&](const std::string& what, const std::string& got, const std::string& allowed) {
    throw Fault(name + what + ", got " + got + "; allowed " + allowed);
  };
  const Dim3 &g = l.grid, &b = l.block;
  constexpr unsigned kMaxX = 0x7FFFFFFF, kMaxYZ = 65535, kMaxBlockZ = 64;
  if (!g.x || !g.y || !g.z || g.x > kMaxX || g.y > kMaxYZ || g.z > kMaxYZ)
    refuse("grid", text_of(g), "(1 to 2147483647, 1 to 65535, 1 to 65535)");
  if (!b.x || !b.y || !b.z || b.x > kMaxThreads || b.y > kMaxThreads || b.z > kMaxBlockZ ||
      std::uint64_t{b.x} * b.y * b.z > kMaxThreads)
    refuse("block", text_of(b), "1 to 1024 threads, at most 64 in z");
  if (l.shared_bytes > kMaxShared)
    refuse("shared memory", std::to_string(l.shared_bytes) + " bytes",
           "at most " + std::to_string(kMaxShared));
}

// The threads' numbers and the order in which they start, the same for every block.
void make_threads(const Dim3& dim) {
  Block& b = machine.block;
  const unsigned n = dim.x * dim.y * dim.z;
  b.threads.resize(n);
  b.warps.resize((n + kLanes - 1) / kLanes);
  b.order.resize(n);
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = b.threads[i];
    t.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
    t.lane = i % kLanes;
    t.warp = i / kLanes;
    b.order[i] = i;
  }
  if (machine.mode.order == Order::kReversed) std::reverse(b.order.begin(), b.order.end());
}

// A word that is not understood is a fault of the first launch, which runs in the ordinary mode.
void read_environment() {
  if (mode_is_set) return;
  mode_is_set = true;
  const char* const words = std::getenv("HOTLOOP_SIMT");
  if (!words) return;
  try {
    machine.mode = parse_mode(words);
    machine.random = machine.mode.seed;
  } catch (const std::invalid_argument& e) {
    keep(e.what());
  }
}

}  // namespace

void set_mode(const Mode& mode) {
  const std::lock_guard lock(one_launch);
  machine.mode = mode;
  machine.random = mode.seed;
  mode_is_set = true;
}

Mode current_mode() {
  const std::lock_guard lock(one_launch);
  read_environment();
  return machine.mode;
}

BlockRange run(const Launch& launch, const std::function<void()>& body, std::vector<BlockRange> unordered) {
  const std::lock_guard lock(one_launch);
  read_environment();
  check_limits(launch);
  machine.launch = launch;
  machine.body = &body;
  grid_dim = launch.grid;
  block_dim = launch.block;
  make_threads(launch.block);
  const std::uint64_t blocks = std::uint64_t{grid_dim.x} * grid_dim.y * grid_dim.z;
  std::vector<unsigned> order;
  if (machine.mode.order == Order::kRandom) {
    order.resize(blocks);
    std::iota(order.begin(), order.end(), 0u);
    shuffle(order);
  }
  race::begin_launch(std::move(unordered));
  const std::uint64_t first = block_serial + 1;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    std::uint64_t n = i;
    if (machine.mode.order == Order::kReversed) n = blocks - 1 - i;
    if (machine.mode.order == Order::kRandom) n = order[i];
    block_index = {static_cast<unsigned>(n % grid_dim.x), static_cast<unsigned>(n / grid_dim.x % grid_dim.y),
                   static_cast<unsigned>(n / (std::uint64_t{grid_dim.x} * grid_dim.y))};
    run_block();
  }
  return {first, block_serial + 1};
}

int atomic_add(int* p, int v) {
  race::used_counter(p);
  race::wrote(p, sizeof *p, race::Kind::kAtomic);
  const int before = *p;
  *p = static_cast<int>(static_cast<unsigned>(before) + static_cast<unsigned>(v));
  return before;
}

void fence() { race::fenced(); }

BlockRange perform(const Command& command, std::vector<BlockRange> unordered) {
  try {
    if (command.what.name) return run(command.what, command.body, std::move(unordered));
    command.body();
  } catch (const std::exception& e) {
    keep(e.what());
  }
  return {};
}

std::string take_fault() {
  const std::lock_guard lock(one_fault);
  return std::exchange(first_fault, {});
}

std::string text_of(const Dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

std::string text_of(const Site& site) {
  const char* const slash = std::strrchr(site.file, '/');
  return std::string(site.what) + " at " + (slash ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

// splitmix64.
std::uint64_t next_random() {
  std::uint64_t z = machine.random += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

void shuffle(std::vector<unsigned>& order) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
}

}  // namespace hotloop::simt
