// SPDX-License-Identifier: Apache-2.0
#include "bindings/lent_tensor.h"

#include <array>

#include "core/error.h"

namespace hotloop {
namespace {

struct Lent {
  dlpack::Managed managed = {};
  std::array<std::int64_t, TensorMaker::kMaxDims> shape = {}, strides = {};
  Keeper keeper;
};

py::object array_of(std::byte* data, Real real, const std::vector<int64>& shape, const Keeper& keeper) {
  auto kept = std::make_unique<Keeper>(keeper);
  const py::capsule base(kept.get(), [](void* held) { delete static_cast<Keeper*>(held); });
  kept.release();
  const py::dtype dtype = real == Real::kFloat32 ? py::dtype::of<float>() : py::dtype::of<double>();
  return py::array(dtype, std::vector<py::ssize_t>(shape.begin(), shape.end()), data, base);
}

}  // namespace

py::object TensorMaker::make(std::byte* data, Real real, const std::vector<int64>& shape,
                             const Keeper& keeper) const {
  if (take_ == nullptr) return array_of(data, real, shape, keeper);
  check(shape.size() <= kMaxDims, "[tensor] ", shape.size(), " dimensions");
  auto lent = std::make_unique<Lent>();
  lent->keeper = keeper;
  int64 stride = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    lent->shape[d] = shape[d];
    lent->strides[d] = stride;
    stride *= shape[d];
  }
  dlpack::Managed& m = lent->managed;
  m.major = dlpack::kMajorVersion;
  m.context = lent.get();
  m.deleter = [](dlpack::Managed* self) { delete static_cast<Lent*>(self->context); };
  m.tensor.data = data;
  m.tensor.device = {dlpack::kCpu, 0};
  m.tensor.ndim = static_cast<std::int32_t>(shape.size());
  m.tensor.dtype = {dlpack::kFloat, static_cast<std::uint8_t>(8 * real_bytes(real)), 1};
  m.tensor.shape = lent->shape.data();
  m.tensor.strides = lent->strides.data();
  void* made = nullptr;
  if (take_(&lent.release()->managed, &made) != 0) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(made));
}

}  // namespace hotloop
