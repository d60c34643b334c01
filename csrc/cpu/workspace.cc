// SPDX-License-Identifier: Apache-2.0
#include "cpu/workspace.h"

#include <memory>

#include "cpu/aligned_block.h"

namespace hotloop {

std::byte* workspace() {
  // A pointer and not the bytes: those would be part of every thread's stack where this is linked statically.
  thread_local std::unique_ptr<AlignedBlock> block;
  if (block == nullptr) block = std::make_unique<AlignedBlock>(kWorkspaceBytes);
  return block->data();
}

}  // namespace hotloop
