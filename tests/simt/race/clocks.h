// SPDX-License-Identifier: Apache-2.0
// Who knows of whose work. Within a block: barriers are counted (epochs), and each lane has for each other
// lane of its warp the last meeting that it knows of. Between blocks: a fence and then a use of an atomic
// counter releases, a later use of that counter acquires; nothing else orders two blocks of one launch.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "simt/machine.h"

namespace hotloop::simt::race {

// One access as a cell of the shadow remembers it.
struct Access {
  std::uint32_t block = 0;   // its serial; 0: none
  std::uint32_t epoch = 0;   // barriers its block had passed
  std::uint32_t stamp = 0;   // the last meeting of its warp that its thread was at
  std::uint32_t fences = 0;  // that its thread had passed
  std::uint32_t place = 0;   // in the library's code; 0: inside the emulator
  std::uint16_t thread = 0;
  std::uint8_t bytes = 0;  // of the word, a bit each
  std::uint8_t kind = 0;
};

class Clocks {
 public:
  void begin_launch(std::vector<BlockRange> unordered);
  void begin_block();
  void meet(unsigned warp, unsigned lanes);
  void fence();
  void use_counter(const void* counter);

  Access now() const;  // of the thread that runs
  // Whether what the running thread does now comes after an access of this launch.
  bool knows(const Access& a, bool written) const;
  // The same for reads by several lanes of one warp, of which `a` is the last.
  bool knows_all(const Access& a, std::uint32_t lanes) const;
  bool of_this_launch(const Access& a) const { return a.block >= first_block_; }
  // Of a launch that ended before this one could begin.
  bool is_over(const Access& a) const;

 private:
  using Seen = std::array<std::uint32_t, kLanes>;  // of each lane the meeting up to which its work is known
  struct Lane {
    Seen seen;
    std::uint32_t stamp, fences, fences_before, fence_epoch;
    Seen seen_at_fence;
    bool has_fenced;
    std::uint32_t known_fences(std::uint32_t epoch) const {
      return fence_epoch == epoch ? fences_before : fences;
    }
  };
  // What a block had done, and for others to see, when one of its threads used a counter.
  struct Release {
    std::size_t place;  // among those of the counter
    std::uint32_t thread, epoch, fence_epoch;
    bool has_fenced;
    Seen seen, seen_at_fence;
    std::vector<std::uint32_t> fences;  // of each thread, as far as `thread` can know of them
    bool covers(const Access& a, bool needs_fence) const;
  };
  struct Counter {
    std::size_t uses = 0;
    std::unordered_map<std::uint32_t, Release> by_block;  // the last of each
  };
  struct Acquired {
    const Counter* counter;
    std::size_t uses;  // before it
    std::uint32_t thread, epoch, stamp;
  };
  bool within_block(std::uint32_t thread, std::uint32_t epoch, std::uint32_t stamp) const;

  std::uint32_t first_block_ = 1;
  std::vector<BlockRange> unordered_;
  std::vector<Lane> lanes_;
  std::vector<std::uint32_t> meetings_;  // of each warp
  std::map<const void*, Counter> counters_;
  std::vector<Acquired> acquired_;  // by the block that runs
};

}  // namespace hotloop::simt::race
