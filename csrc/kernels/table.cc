// SPDX-License-Identifier: Apache-2.0
// Names and argument schema of every kernel, made from kernels.def and the field lists of args.h.
#include "kernels/table.h"

#include <array>

namespace hotloop {
namespace {

// A field's type token names its DType: DTypeOf::real, DTypeOf::index, ... and nothing for attributes.
namespace DTypeOf {
constexpr DType real_ = DType::kReal, index_ = DType::kIndex, double_ = DType::kDouble,
                int64_ = DType::kInt64, _ = DType::kReal;
}

#define HOTLOOP_SPEC(kind, type, member) \
  Field{#member, FieldKind::kind, DTypeOf::type##_, offsetof(Self, member)},
#define HOTLOOP_KERNEL(name, Args)                               \
  constexpr auto fields_##name = [] {                            \
    using Self = Args<float>;                                    \
    static_assert(sizeof(Self) <= kMaxArgsBytes);                \
    static_assert(sizeof(Self) == sizeof(Args<double>));         \
    return std::to_array<Field>({HOTLOOP_##Args(HOTLOOP_SPEC)}); \
  }();
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL

constexpr KernelInfo kInfo[] = {
#define HOTLOOP_KERNEL(name, Args) {#name, fields_##name, sizeof(Args<float>)},
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
};
static_assert(std::size(kInfo) == kNumKernels, "one description per kernel");

constexpr std::string_view kActivations[] = {
#define HOTLOOP_UNARY(name, Functor, reads) #name,
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
};

}  // namespace

const KernelInfo& kernel_info(Kernel kernel) { return kInfo[static_cast<int>(kernel)]; }

int find_kernel(std::string_view name) {
  for (int i = 0; i < kNumKernels; ++i)
    if (kInfo[i].name == name) return i;
  return -1;
}

int activation_index(std::string_view name) {
  for (std::size_t i = 0; i < std::size(kActivations); ++i)
    if (kActivations[i] == name) return static_cast<int>(i);
  return -1;
}

}  // namespace hotloop
