// SPDX-License-Identifier: Apache-2.0
// The detector of races: a cell for each four bytes of device and shared memory with the last write and the
// last reads, asked at every access whether the thread that runs knows of them. Compiled in the build for
// races only, and never with -fsanitize=thread itself. A race is a fault of the launch, whichever way it
// would have ended this time.
#include "simt/race.h"

#include <sys/mman.h>

#include <new>
#include <string>
#include <utility>

#include "simt/device_memory.h"
#include "simt/machine.h"
#include "simt/race/clocks.h"
#include "simt/race/code_place.h"

namespace hotloop::simt::race {
namespace {

constexpr std::size_t kWord = 4;

struct Cell {
  Access write;
  Access read;               // the last of the block that read last
  Access earlier;            // the last of another block
  std::uint32_t read_lanes;  // of the warp of `read`, in its epoch
  bool several_warps;        // read in that epoch
  std::uint32_t last_block;  // that used it, of shared memory
};

// Untouched pages of it do not exist, and a cell of zeros remembers nothing.
Cell* reserve(std::size_t bytes_watched) {
  void* const p = mmap(nullptr, bytes_watched / kWord * sizeof(Cell), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<Cell*>(p);
}

// A range of memory and its cells. Shared memory is a new one for each block.
struct Watched {
  std::uintptr_t begin;
  std::size_t bytes;
  bool of_block;
  Cell* cells;
  Watched(const Range& r, bool of_block_)
      : begin(reinterpret_cast<std::uintptr_t>(r.begin)),
        bytes(r.bytes),
        of_block(of_block_),
        cells(reserve(r.bytes)) {}
  Cell* cell(std::uintptr_t at) const { return at - begin < bytes ? cells + (at - begin) / kWord : nullptr; }
};

const Watched device(device_range(), false), shared_memory(shared_range(), true);
Clocks clocks;

std::string who(const Access& a) {
  const Dim3 d = block_dim;
  const unsigned n = a.thread;
  const bool here = a.block == static_cast<std::uint32_t>(block_serial);
  const std::string thread = text_of(Dim3{n % d.x, n / d.x % d.y, n / (d.x * d.y)});
  return (here                       ? "thread "
          : clocks.of_this_launch(a) ? "another block's thread "
                                     : "another launch's thread ") +
         thread + (a.place ? " at " + code_place(a.place) : "");
}

std::string what(const Access& a, bool write) {
  switch (static_cast<Kind>(a.kind)) {
    case Kind::kAtomic:
      return "atomically changes";
    case Kind::kMatrix:
      return "loads matrices from";
    case Kind::kCopy:
      return write ? "waited for a copy to" : "copied from";
    case Kind::kUnderWay:
      return write ? "copies asynchronously to" : "copies asynchronously from";
    case Kind::kPlain:
      break;
  }
  return write ? "writes" : "reads";
}

[[noreturn]] void report(const Access& now, bool write, const Access& before, bool before_write,
                         std::uintptr_t at) {
  give_up_launch("[" + std::string(machine.launch.name) + "] race in block " + text_of(block_index) + ": " +
                 who(now) + " " + what(now, write) + " " +
                 place_in_memory(reinterpret_cast<const void*>(at)) + ", which " + who(before) + " " +
                 what(before, before_write) + ", and nothing orders the two");
}

bool both_atomic(const Access& a, const Access& b) {
  return a.kind == static_cast<std::uint8_t>(Kind::kAtomic) &&
         b.kind == static_cast<std::uint8_t>(Kind::kAtomic);
}

void check_write_before(const Cell& c, const Access& now, bool write, std::uintptr_t at) {
  const Access& w = c.write;
  if (!w.block || clocks.is_over(w) || !(w.bytes & now.bytes)) return;
  if (w.kind == static_cast<std::uint8_t>(Kind::kUnderWay)) {
    const bool lands = now.kind == static_cast<std::uint8_t>(Kind::kCopy) && w.thread == now.thread;
    if (w.block == now.block && !lands) report(now, write, w, true, at);
  }
  if (!both_atomic(w, now) && !clocks.knows(w, true)) report(now, write, w, true, at);
}

void check_reads_before(const Cell& c, const Access& now, std::uintptr_t at) {
  const Access& r = c.read;
  if (r.block && r.bytes & now.bytes) {
    const bool same_epoch = r.block == now.block && r.epoch == now.epoch;
    if ((same_epoch && c.several_warps) || !clocks.knows_all(r, c.read_lanes))
      report(now, true, r, false, at);
  }
  if (c.earlier.block && c.earlier.bytes & now.bytes && !clocks.knows(c.earlier, false))
    report(now, true, c.earlier, false, at);
}

void remember_read(Cell& c, const Access& now) {
  Access& r = c.read;
  const std::uint32_t lane_bit = 1u << (now.thread % kLanes);
  // Neighbours that read other bytes of the word are no readers of these: then only the last is remembered.
  if (r.block == now.block && r.epoch == now.epoch && r.bytes == now.bytes) {
    if (r.thread / kLanes != now.thread / kLanes) c.several_warps = true;
    const std::uint32_t stamp = r.stamp;
    r = now;
    if (r.stamp < stamp) r.stamp = stamp;
    c.read_lanes |= lane_bit;
    return;
  }
  if (r.block && r.block != now.block) c.earlier = r;
  r = now;
  c.read_lanes = lane_bit;
  c.several_warps = false;
}

void access(const void* p, std::size_t bytes, bool write, Kind kind, const void* code) {
  if (!machine.current) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(p), end = begin + bytes;
  const Watched* const in = device.cell(begin)          ? &device
                            : shared_memory.cell(begin) ? &shared_memory
                                                        : nullptr;
  if (!in) return;
  Access now = clocks.now();
  now.kind = static_cast<std::uint8_t>(kind);
  now.place = code ? place_of(code) : 0;
  for (std::uintptr_t word = begin / kWord * kWord; word < end; word += kWord) {
    Cell* const c = in->cell(word);
    if (!c) break;
    if (in->of_block && c->last_block != now.block) {
      *c = {};
      c->last_block = now.block;
    }
    now.bytes = 0;
    for (std::size_t i = 0; i < kWord; ++i)
      if (word + i >= begin && word + i < end) now.bytes |= static_cast<std::uint8_t>(1u << i);
    check_write_before(*c, now, write, word);
    if (!write) {
      remember_read(*c, now);
      continue;
    }
    check_reads_before(*c, now, word);
    c->write = now;
  }
}

}  // namespace

void begin_launch(std::vector<BlockRange> unordered) { clocks.begin_launch(std::move(unordered)); }
void begin_block() { clocks.begin_block(); }
void met(unsigned warp_number, unsigned lanes) { clocks.meet(warp_number, lanes); }
void fenced() { clocks.fence(); }
void used_counter(const void* counter) { clocks.use_counter(counter); }
void read(const void* p, std::size_t bytes, Kind kind) { access(p, bytes, false, kind, nullptr); }
void wrote(const void* p, std::size_t bytes, Kind kind) { access(p, bytes, true, kind, nullptr); }

}  // namespace hotloop::simt::race

// What the compiler calls: before each access, at the ends of functions, for the tables of virtual functions.
#define HOOK(name, bytes, write)                                                    \
  void __tsan_##name(const void* p) {                                               \
    hotloop::simt::race::access(p, bytes, write, hotloop::simt::race::Kind::kPlain, \
                                __builtin_return_address(0));                       \
  }
#define HOOKS(bytes)                        \
  HOOK(read##bytes, bytes, false)           \
  HOOK(write##bytes, bytes, true)           \
  HOOK(unaligned_read##bytes, bytes, false) \
  HOOK(unaligned_write##bytes, bytes, true) \
  HOOK(volatile_read##bytes, bytes, false)  \
  HOOK(volatile_write##bytes, bytes, true)
extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(const void* p, unsigned long bytes) {
  hotloop::simt::race::access(p, bytes, false, hotloop::simt::race::Kind::kPlain,
                              __builtin_return_address(0));
}
void __tsan_write_range(const void* p, unsigned long bytes) {
  hotloop::simt::race::access(p, bytes, true, hotloop::simt::race::Kind::kPlain, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Guards of the launchers' own static variables: no kernel has one.
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) {
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
}
#undef HOOKS
#undef HOOK
