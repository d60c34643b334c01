// SPDX-License-Identifier: Apache-2.0
// What this build was made with.
#include "build_info.h"

#include "bindings/register.h"

namespace hotloop {

void register_build_info(py::module_& m) {
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["cuda"] = kBuiltForCuda;
        info["cuda_reason"] = kWithoutCuda;
        return info;
      },
      "What this build holds: \"cuda\", the architectures of _cuda.so such as \"sm_80,sm_90a\", empty "
      "without "
      "it; \"cuda_reason\", why there is none.");
}

}  // namespace hotloop
