// SPDX-License-Identifier: Apache-2.0
// Host side of the chain kernel: from steps of a plan to the instructions of one launch.
#pragma once

#include "cuda/api.h"
#include "kernels/chain_program.h"

namespace hotloop::cuda {

struct ChainLaunch {
  ChainProgram program;
  std::size_t shared_bytes = 0;
  unsigned blocks = 0;
};

// False if the steps are of a kind that one launch does not take, or need more memory than a block has.
bool plan_chain(const ChainStep* steps, std::size_t n, int64 rows, const DeviceTraits& traits,
                Precision precision, ChainLaunch& found);

// First part: steps become instructions whose values all lie in device memory. unread: nobody outside of the
// chain reads what that instruction makes.
struct ChainList {
  ChainProgram program;
  bool out_unread[kChainSteps] = {}, saved_unread[kChainSteps] = {};
};
bool translate_chain(const ChainStep* steps, std::size_t n, int64 rows, ChainList& found);

}  // namespace hotloop::cuda
