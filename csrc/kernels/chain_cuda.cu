// SPDX-License-Identifier: Apache-2.0
// A chain of steps in one launch: each block takes tiles of rows through all of them, so that activations
// stay in shared memory and every weight is read once by each block.
//
// What bounds it, on an H100 (132 multiprocessors, 1.755 GHz):
//   64-128-10 at batch 32, forwards, loss and gradients: 0.7 MFLOP; 8 blocks of 4 rows each fetch 37 KB of
//   weights, some 750 clocks from L2, and multiply for some 600 more: less than the launch. One launch for
//   four. 64-64x4 at batch 2^16: 4.8 GFLOP, 82 us of multiply-adds at 59 TFLOP/s; written are activations and
//   their gradients for the weights' products, 2 x 5 x 16.8 MB: 56 us at 3 TB/s. Kernel by kernel, reads add
//   as much.
#include "kernels/chain_mma_cuda.h"
#include "kernels/chain_plan.h"
#include "kernels/chain_product_cuda.h"
#include "kernels/chain_rows_cuda.h"
#include "kernels/launchers.h"

namespace hotloop::cuda {
namespace {

HL_DEVICE void run_rows(const ChainTile& t, const ChainInstruction& s, const DeviceStep* step) {
  switch (s.kind) {
    case ChainKind::kProduct:
    case ChainKind::kElements:
      return finish_elements(t, s, step);
    case ChainKind::kCrossEntropy:
      return cross_entropy_rows(t, s);
    case ChainKind::kLoss:
      return loss_rows(t, s);
    case ChainKind::kNorm:
      return norm_rows(t, s);
    case ChainKind::kNormGrad:
      return norm_grad_rows(t, s);
  }
}

// The products of any device, on the multiply-add units.
struct ChainOld {
  static constexpr bool kAsync = false;
  HL_DEVICE static void multiply(const ChainTile& t, const ChainInstruction& s) {
    multiply_plain<false>(t, s);
  }
};

// Those of sm_80 and up. One kernel holds them all: only a product's inner loop is another.
struct ChainNew {
  static constexpr bool kAsync = true;
  HL_DEVICE static void multiply(const ChainTile& t, const ChainInstruction& s) {
    switch (t.program.path) {
      case ChainPath::kPlain:
        return multiply_plain<true>(t, s);
      case ChainPath::kTf32:
        return multiply_mma<MmaTf32>(t, s);
      case ChainPath::kBf16:
        return multiply_mma<MmaBf16>(t, s);
      case ChainPath::kSplitTf32:
        return multiply_mma<MmaFloat32<true>>(t, s);
    }
  }
};

template <class Products>
HL_KERNEL HL_BOUNDS(kChainThreads, 1) run_chain(const ChainProgram program, const DeviceStep* step) {
  HL_DYNAMIC_SHARED(float, shared);
  bring_weights<Products::kAsync>(program, shared);
  bring_wait<Products::kAsync, 0>();
  for (int64 first = int64{blockIdx.x} * program.tile; first < program.rows;
       first += int64{gridDim.x} * program.tile) {
    const int64 left = program.rows - first;
    const ChainTile tile{program, shared, first, static_cast<int>(left < program.tile ? left : program.tile)};
    HL_NO_UNROLL
    for (int i = 0; i < program.n; ++i) {
      const ChainInstruction& s = program.steps[i];
      if (s.kind == ChainKind::kProduct) {
        Products::multiply(tile, s);
        sync();
      }
      run_rows(tile, s, step);
      sync();
    }
  }
}

template <class Products>
void launch_chain(const ChainLaunch& c, const Launch& l) {
  launch(stream_of(l), run_chain<Products>, c.blocks, kChainThreads, c.shared_bytes, c.program, l.step);
}

}  // namespace

int chain_fits(const ChainStep* steps, std::size_t n, std::int64_t rows, const DeviceTraits& traits,
               Precision precision) {
  ChainLaunch found;
  return plan_chain(steps, n, rows, traits, precision, found) ? 1 : 0;
}

std::size_t chain_workspace(const ChainStep*, std::size_t, std::int64_t, const DeviceTraits&, Precision) {
  return 0;
}

void chain_launch(const ChainStep* steps, std::size_t n, std::int64_t rows, const Launch& launch) {
  ChainLaunch found;
  if (!plan_chain(steps, n, rows, *launch.traits, launch.precision, found)) return;
  if (launch.traits->has_mma != 0)
    launch_chain<ChainNew>(found, launch);
  else
    launch_chain<ChainOld>(found, launch);
}

}  // namespace hotloop::cuda
