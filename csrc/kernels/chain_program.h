// SPDX-License-Identifier: Apache-2.0
// What the chain kernel executes: a list of instructions that goes by value as its parameter, since launches
// are captured in graphs. chain_plan_cuda.cu makes it of the steps of a plan.
//
// A block takes a tile of rows through all instructions. A value is a tile too: in shared memory (`place`, in
// floats from its beginning, rows `padded(columns)` apart, zeros up to the granule), in device memory (`at`,
// rows `stride` apart), or both: kept on the chip for later instructions and written for other stages.
#pragma once

#include "core/types.h"

namespace hotloop::cuda {

constexpr int kChainSteps = 16;
// One block fills a multiprocessor's registers at 128 a thread, so that weights lie in shared memory once,
// not once for each of several blocks; 16 warps hide the loads of one another.
constexpr int kChainThreads = 512;
constexpr int kChainWidth = 128;   // columns of a value that is made in the chain
constexpr int kChainDepth = 1024;  // columns of one that comes from outside, the network's inputs

HOTLOOP_HD constexpr int round_up(int n, int step) { return (n + step - 1) / step * step; }

// Floats between the rows of a tile of so many columns: a multiple of 4 (16-byte accesses) with an odd
// quotient, so that eight rows' 16 bytes at one column, and 8 x 4 single floats, lie in 32 different banks.
HOTLOOP_HD constexpr int padded(int columns, int granule) {
  const int width = round_up(columns, granule);
  return width / 4 % 2 == 0 ? width + 4 : width;
}

struct ChainOperand {
  float* at = nullptr;  // null: not in device memory, or absent
  int stride = 0;
  int place = -1;  // -1: not in shared memory
};

// The right operand of a product, B (k, n): the same for every row.
enum class ChainForm : int {
  kByColumns,  // stored (n, k): a layer's weight in its forward product
  kByRows,     // stored (k, n): the same weight in the gradient
  kPanels,     // as pack_panels leaves it; in shared memory as kByRows
};
struct ChainMatrix {
  const float* at = nullptr;
  int rows = 0, columns = 0;  // as stored; panels: k, n
  int stride = 0;
  int place = -1;  // where the whole of it is in shared memory; -1: streamed in pieces of k
  ChainForm form = ChainForm::kByColumns;
  int first = 0;  // the instruction that is to bring it to shared memory: the others share it
};

// Which way the products of a launch are computed.
enum class ChainPath : int { kPlain, kSplitTf32, kTf32, kBf16 };

enum class ChainKind : int { kProduct, kElements, kCrossEntropy, kLoss, kNorm, kNormGrad };

struct ChainInstruction {
  ChainKind kind = ChainKind::kElements;
  int columns = 0, depth = 0;  // of out; of in, if a product
  int function = -1;           // in unary.def, or of a loss in loss.def
  int dropout = -1;            // layer
  int centred = 0;             // a norm that subtracts the mean
  float p0 = 0.0f, p1 = 0.0f;  // p0: a norm's eps, label smoothing
  float alpha = 1.0f;          // of a product
  ChainOperand in;             // a, x, dy, logits, pred
  ChainOperand other;          // gate; target, probs; x of a norm's gradient
  ChainOperand residual;
  ChainOperand out;
  ChainOperand saved;
  ChainMatrix b;
  const float* vector = nullptr;  // (columns): bias, pos_weight, a norm's weight
  const float* shift = nullptr;   // (columns): a norm's bias
  const index* labels = nullptr;  // (rows)
  const float* drow = nullptr;    // (rows)
  float* row_loss = nullptr;      // (rows); a norm's rstd
  float* mean = nullptr;          // (rows)
};

struct ChainProgram {
  ChainInstruction steps[kChainSteps];
  int n = 0;
  int tile = 0;  // rows of one, a power of two
  int granule =
      4;          // columns and depths are padded with zeros to multiples of it: what a product takes at once
  int piece = 0;  // k of a streamed piece
  int staging = 0;               // place of two pairs of pieces, of A and of B
  int a_piece = 0, b_piece = 0;  // floats of one
  ChainPath path = ChainPath::kPlain;
  int64 rows = 0;
};
// Parameters of a kernel are limited to 4 KB.
static_assert(sizeof(ChainProgram) <= 4000);

}  // namespace hotloop::cuda
