// SPDX-License-Identifier: Apache-2.0
// From an address in this library's code to "norm_cuda.cu:40".
#pragma once

#include <cstdint>
#include <string>

namespace hotloop::simt {

// An address of code as an offset in this library.
std::uint32_t place_of(const void* code);
// The line there, asked of addr2line; the offset where that is not installed.
std::string code_place(std::uint32_t place);

}  // namespace hotloop::simt
