// SPDX-License-Identifier: Apache-2.0
// Races between threads: what the machine does is noted, and judged in the build that looks for races.
#include "simt/machine.h"

namespace hotloop::simt {

void begin_launch() {}
void note_read(const void*, std::size_t) {}
void note_write(void*, std::size_t) {}
void fence() {}

int atomic_add(int* p, int v) {
  const int before = *p;
  *p = static_cast<int>(static_cast<unsigned>(before) + static_cast<unsigned>(v));
  return before;
}

void warp_barrier(const Site& site, unsigned mask) {
  warp_collective(site, mask, nullptr, [](Lanes) {});
}

}  // namespace hotloop::simt
