// SPDX-License-Identifier: Apache-2.0
// Memory of each thread's own, for the blocks of operands that a kernel copies: too large for the stack of
// 128 KB that a thread may have, and warm in its cache because every product uses the same.
#pragma once

#include <cstddef>

namespace hotloop {

constexpr std::size_t kWorkspaceBytes = std::size_t{896} << 10;

// The calling thread's workspace, on a cache line. Made at first use, kept until the thread ends.
std::byte* workspace();

}  // namespace hotloop
