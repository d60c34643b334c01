// SPDX-License-Identifier: Apache-2.0
// The Plan as plain data: what the compiler hands to the executors. Mirrors python/hotloop/compile/plan.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/table.h"

namespace hotloop {

// The memory a buffer lies in.
enum class Space {
  kArena,
  kParameter,
  kGradient,
  kAccumulated,
  kMoment1,
  kMoment2,
  kEma,
  kState,
  kCounter,
  kEmaCounter,
  kMetric,
  kConstant
};
constexpr int kNumSpaces = static_cast<int>(Space::kConstant) + 1;
using SpaceSet = std::uint32_t;  // a bit for each
constexpr SpaceSet bit(Space space) { return SpaceSet{1} << static_cast<int>(space); }

enum class Real { kFloat32, kFloat64 };
constexpr std::size_t real_bytes(Real real) { return real == Real::kFloat32 ? 4 : 8; }
constexpr std::size_t dtype_bytes(DType dtype, Real real) {
  switch (dtype) {
    case DType::kReal:
      return real_bytes(real);
    case DType::kIndex:
      return 4;
    case DType::kDouble:
    case DType::kInt64:
      return 8;
  }
  return 0;
}

// per_row * rows + constant
struct Affine {
  int64 per_row = 0, constant = 0;
  int64 at(int64 rows) const { return per_row * rows + constant; }
};

struct Buffer {
  Space space = Space::kArena;
  DType dtype = DType::kReal;
  Affine size;             // elements
  std::size_t offset = 0;  // bytes into the space
};

// The value of one field of a kernel's arguments; which member counts follows from the field's kind.
struct FieldValue {
  int buffer = -1;   // operands: index in the buffer table, -1 for absent
  int64 offset = 0;  // operands: elements into the buffer
  Affine dim;
  int64 integer = 0;
  double number = 0.0;
};

struct PlanStep {
  Kernel kernel{};
  std::vector<FieldValue> fields;  // in the order of kernel_info(kernel).fields
};

// Steps [begin, end) between two barriers of a team; see python/hotloop/compile/stages.py.
struct PlanStage {
  bool rows = false;  // each block of rows goes through all of them; else their chunks are one pool
  int64 begin = 0, end = 0;
};

struct Plan {
  Real real = Real::kFloat32;
  int64 max_rows = 1;
  std::size_t arena_bytes = 0;
  int64 metric_doubles = 0;
  int64 update = 0;   // where the section of the update begins; the number of steps without one
  int64 prepare = 0;  // the first steps, which depend on parameters alone: run once until those change
  int n_groups = 0, n_dropout = 0;
  std::vector<double> constants;
  std::vector<Buffer> buffers;
  std::vector<PlanStep> steps;
  std::vector<PlanStage> stages;  // they cover the steps; none: each step is one of its own
  std::vector<int> outputs;       // buffers that somebody reads after a run, beside what no program owns
  bool knows_outputs = false;     // else it may be any

  int params_width() const { return 2 * n_groups + n_dropout; }
};

constexpr bool is_operand(FieldKind kind) {
  return kind != FieldKind::Dim && kind != FieldKind::Int && kind != FieldKind::Real;
}
constexpr bool is_written(FieldKind kind) {
  return is_operand(kind) && kind != FieldKind::In && kind != FieldKind::InOpt;
}

// Which spaces the steps of a plan write.
SpaceSet written_spaces(const Plan& plan);

// Sizes in elements of the flat memory that plans of one session share.
struct MemorySizes {
  int64 parameters = 0, state = 0, counters = 0;
  int moments = 0;           // how many buffers of the parameters' size: 0, 1 or 2
  bool accumulated = false;  // one for sums of gradients over batches
  bool ema = false;          // one for a moving average of the parameters
};

// Throws InternalError unless every operand of every step lies inside its memory for any rows up to
// max_rows, has the dtype that its kernel reads, and is not written where it may only be read.
void check_plan(const Plan& plan, const MemorySizes& memory);

}  // namespace hotloop
