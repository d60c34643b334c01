// SPDX-License-Identifier: Apache-2.0
// mutants: the names of all cases. mutants NAME "MODE": runs one, and ends with 0 if its numbers are right
// and the emulator found nothing, 3 if it found something, which is printed, 4 if only the numbers are wrong.
#include <cstdio>
#include <string>

#include "simt/mode.h"
#include "simt/mutants/mutants.h"

int main(int argc, char** argv) {
  using namespace hotloop;
  using namespace hotloop::cuda::mutants;
  enum Result { kRight = 0, kUsage = 2, kFault = 3, kWrong = 4 };
  const std::span<const Case> all[] = {tile_cases(),  copy_cases(),   warp_cases(),
                                       block_cases(), matrix_cases(), host_cases()};
  for (const auto& cases : all)
    for (const Case& c : cases) {
      if (argc == 1) std::printf("%s\n", std::string(c.name).c_str());
      if (argc != 3 || c.name != argv[1]) continue;
      simt::set_mode(simt::parse_mode(argv[2]));
      const bool right = c.run();
      const std::string fault = simt::take_fault();
      std::printf("%s\n", fault.c_str());
      return !fault.empty() ? kFault : right ? kRight : kWrong;
    }
  return argc == 1 ? kRight : kUsage;
}
