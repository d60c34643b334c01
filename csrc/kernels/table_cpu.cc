// SPDX-License-Identifier: Apache-2.0
// One ISA's column of the kernel table; compiled once per ISA like the kernels it points to.
#include "kernels/table.h"

namespace hotloop::HOTLOOP_ISA {
namespace {

template <class Args, int64 (*chunks)(const Args&)>
int64 erased_chunks(const void* args) {
  return chunks(*static_cast<const Args*>(args));
}

template <class Args, void (*run)(const Args&, const StepContext&, int64)>
void erased_run(const void* args, const StepContext& ctx, int64 chunk) {
  run(*static_cast<const Args*>(args), ctx, chunk);
}

template <class Args, int64 (*chunks)(const Args&), void (*run)(const Args&, const StepContext&, int64)>
void erased_run_all(const void* erased, const StepContext& ctx) {
  const auto& args = *static_cast<const Args*>(erased);
  if constexpr (requires { all_chunks(args, ctx); }) {
    all_chunks(args, ctx);
  } else {
    const int64 count = chunks(args);
    for (int64 chunk = 0; chunk < count; ++chunk) run(args, ctx, chunk);
  }
}

}  // namespace

#define HOTLOOP_KERNEL(name, Args)                                  \
  {&erased_chunks<Args<HOTLOOP_REAL>, name##_chunks<HOTLOOP_REAL>>, \
   &erased_run<Args<HOTLOOP_REAL>, name##_run<HOTLOOP_REAL>>,       \
   &erased_run_all<Args<HOTLOOP_REAL>, name##_chunks<HOTLOOP_REAL>, name##_run<HOTLOOP_REAL>>},

#define HOTLOOP_REAL float
constexpr KernelTable table_float = {
#include "kernels/kernels.def"
};
#undef HOTLOOP_REAL

#ifdef HOTLOOP_ISA_HAS_DOUBLE
#define HOTLOOP_REAL double
constexpr KernelTable table_double = {
#include "kernels/kernels.def"
};
#undef HOTLOOP_REAL
#endif
#undef HOTLOOP_KERNEL

}  // namespace hotloop::HOTLOOP_ISA
