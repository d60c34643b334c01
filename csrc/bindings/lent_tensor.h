// SPDX-License-Identifier: Apache-2.0
// Memory of ours as a tensor of somebody else's, made by one C call where the library offers it (DLPack's
// exchange table), else as an array of NumPy's that Python turns into a tensor in two steps more.
#pragma once

#include <memory>
#include <vector>

#include "bindings/operand.h"

namespace hotloop {

using Keeper = std::shared_ptr<const void>;

class TensorMaker {
 public:
  static constexpr int kMaxDims = 8;

  // `type`: of the tensors, if it was introduced; otherwise arrays of NumPy's are made.
  explicit TensorMaker(py::handle type) : take_(taker_of(type)) {}

  // Elements of `real` in row-major order, which `keeper` keeps. It is let go of on any thread.
  py::object make(std::byte* data, Real real, const std::vector<int64>& shape, const Keeper& keeper) const;

 private:
  TakeTensor take_;
};

}  // namespace hotloop
