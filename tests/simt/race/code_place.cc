// SPDX-License-Identifier: Apache-2.0
// Places in the code by the compiler's line tables. addr2line is asked when a race is reported, never before.
#include "simt/race/code_place.h"

#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <sstream>

namespace hotloop::simt {
namespace {

Dl_info library() {
  Dl_info found{};
  dladdr(reinterpret_cast<void*>(&library), &found);
  return found;
}

std::string run(const std::string& command) {
  std::string text;
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) return text;
  std::array<char, 512> part;
  while (std::fgets(part.data(), part.size(), pipe)) text += part.data();
  pclose(pipe);
  return text;
}

}  // namespace

std::uint32_t place_of(const void* code) {
  static const Dl_info self = library();
  return static_cast<std::uint32_t>(static_cast<const char*>(code) -
                                    static_cast<const char*>(self.dli_fbase));
}

std::string code_place(std::uint32_t place) {
  std::ostringstream offset;
  offset << "0x" << std::hex << place - 1;  // what was called returns behind the call
  // Innermost first: the first line that is a kernel's and not of the header that carries out its loads.
  std::istringstream lines(
      run("addr2line -i -e '" + std::string(library().dli_fname) + "' " + offset.str() + " 2>&1"));
  for (std::string line; std::getline(lines, line);) {
    if (line.find("portable_host.h:") != std::string::npos || line.find("??") != std::string::npos) continue;
    if (const auto note = line.find(" ("); note != std::string::npos) line.resize(note);
    const auto slash = line.rfind('/');
    if (line.find(':') != std::string::npos)
      return slash == std::string::npos ? line : line.substr(slash + 1);
  }
  return offset.str();
}

}  // namespace hotloop::simt
