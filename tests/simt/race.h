// SPDX-License-Identifier: Apache-2.0
// What a detector of races is told. In the ordinary build nothing of it exists; in the build for races
// (HOTLOOP_SIMT_RACE) the kernels are compiled with -fsanitize=thread, whose hooks are race.cc's own, so that
// every load and store is seen without a change to their sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt/emulator.h"

namespace hotloop::simt::race {

enum class Kind : std::uint8_t { kPlain, kAtomic, kMatrix, kCopy, kUnderWay };

#ifdef HOTLOOP_SIMT_RACE
inline constexpr bool kWatched = true;
// Blocks of earlier launches that nothing orders before this one.
void begin_launch(std::vector<BlockRange> unordered);
void begin_block();
// These lanes of a warp met: what each did before is known to all.
void met(unsigned warp, unsigned lanes);
void fenced();
// Releases what the thread knows to whoever uses the counter later, and takes over what earlier users
// released.
void used_counter(const void* counter);
void read(const void* p, std::size_t bytes, Kind kind);
void wrote(const void* p, std::size_t bytes, Kind kind);
#else
inline constexpr bool kWatched = false;
inline void begin_launch(const std::vector<BlockRange>&) {}
inline void begin_block() {}
inline void met(unsigned, unsigned) {}
inline void fenced() {}
inline void used_counter(const void*) {}
inline void read(const void*, std::size_t, Kind) {}
inline void wrote(const void*, std::size_t, Kind) {}
#endif

}  // namespace hotloop::simt::race
