// SPDX-License-Identifier: Apache-2.0
// The kernel list as data: names, argument schema, and one table of functions per (ISA, scalar type).
#pragma once

#include <span>
#include <string_view>

#include "kernels/kernel.h"

namespace hotloop {

enum class Kernel : int {
#define HOTLOOP_KERNEL(name, Args) k_##name,
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
  count
};
constexpr int kNumKernels = static_cast<int>(Kernel::count);

enum class FieldKind { In, InOpt, Out, OutOpt, InOut, InOutOpt, Dim, Int, Real };
enum class DType : int { kReal, kIndex, kDouble, kInt64 };  // kReal: the plan's scalar type

struct Field {
  std::string_view name;
  FieldKind kind;
  DType dtype;         // operands only
  std::size_t offset;  // in the args struct; the same for every scalar type
};

struct KernelInfo {
  std::string_view name;
  std::span<const Field> fields;
  std::size_t args_bytes;
};

constexpr std::size_t kMaxArgsBytes = 192;

// Type-erased entry points of one kernel.
struct KernelFn {
  int64 (*chunks)(const void* args) = nullptr;
  void (*run)(const void* args, const StepContext& ctx, int64 chunk) = nullptr;
  void (*run_all)(const void* args, const StepContext& ctx) = nullptr;  // every chunk, on the calling thread
};
using KernelTable = KernelFn[kNumKernels];

const KernelInfo& kernel_info(Kernel kernel);
int find_kernel(std::string_view name);       // -1 if there is none
int activation_index(std::string_view name);  // in unary.def; -1 if there is none

namespace generic {
extern const KernelTable table_float;
extern const KernelTable table_double;
}  // namespace generic
#if defined(__x86_64__)
namespace avx2 {
extern const KernelTable table_float;
}
namespace avx512 {
extern const KernelTable table_float;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable table_float;
}
#endif

}  // namespace hotloop
