// SPDX-License-Identifier: Apache-2.0
// DLPack for arrays on a device, in both directions: what a capsule holds, and capsules that lend our memory.
#include <cstring>

#include "bindings/dlpack.h"
#include "bindings/gpu_memory.h"
#include "bindings/register.h"

namespace hotloop {
namespace {

// Both generations of what capsules hold.
struct Managed {
  dlpack::Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
using ManagedVersioned = dlpack::Managed;
constexpr std::uint64_t kReadOnly = 1;
constexpr const char* kName = "dltensor";
constexpr const char* kVersionedName = "dltensor_versioned";

// A tensor that somebody lent: given back with this object.
template <class Lent>
struct Loan {
  Lent* lent;
  explicit Loan(Lent* l) : lent(l) {}
  ~Loan() {
    if (lent->deleter != nullptr) lent->deleter(lent);
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
};

template <class Lent>
py::tuple describe(py::capsule capsule, const char* name, const char* used, bool read_only) {
  auto* lent = static_cast<Lent*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (lent == nullptr) throw py::error_already_set();
  if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
  auto loan = std::make_unique<Loan<Lent>>(lent);
  const dlpack::Tensor& t = lent->tensor;
  const auto list = [&](const std::int64_t* v) {
    py::tuple all(t.ndim);
    for (std::int32_t i = 0; i < t.ndim; ++i) all[static_cast<std::size_t>(i)] = v[i];
    return all;
  };
  const std::uintptr_t address =
      t.data == nullptr ? 0 : reinterpret_cast<std::uintptr_t>(t.data) + t.byte_offset;
  const py::object strides = t.strides == nullptr ? py::object(py::none()) : py::object(list(t.strides));
  py::capsule owner(loan.release(), [](void* p) { delete static_cast<Loan<Lent>*>(p); });
  return py::make_tuple(address, t.device.type, t.device.number, t.dtype.code, t.dtype.bits, t.dtype.lanes,
                        list(t.shape), strides, read_only, owner);
}

// (address, device type and number, dtype code, bits and lanes, shape, strides or None, read-only, owner)
py::tuple from_dlpack(const py::capsule& capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), kVersionedName) == 0)
    return describe<Managed>(capsule, kName, "used_dltensor", false);
  const auto* lent =
      static_cast<const ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersionedName));
  if (lent->major != dlpack::kMajorVersion)
    throw py::buffer_error("DLPack " + std::to_string(lent->major) + " is not known here; known: 1");
  return describe<ManagedVersioned>(capsule, kVersionedName, "used_dltensor_versioned",
                                    (lent->flags & kReadOnly) != 0);
}

// What keeps a tensor that we lend alive, beside its sizes.
struct Kept {
  std::shared_ptr<ArrayMemory> memory;
  std::vector<std::int64_t> shape, strides;
};

template <class Lent>
py::capsule capsule_of(const dlpack::Tensor& tensor, std::unique_ptr<Kept> kept, const char* name) {
  auto lent = std::make_unique<Lent>();
  lent->tensor = tensor;
  lent->context = kept.get();
  lent->deleter = [](Lent* self) {
    delete static_cast<Kept*>(self->context);
    delete self;
  };
  if constexpr (std::is_same_v<Lent, ManagedVersioned>) {
    lent->major = dlpack::kMajorVersion;
    lent->minor = 0;
    lent->flags = 0;
  }
  // Who takes the tensor renames the capsule, and the deleter is theirs to call.
  PyObject* made = PyCapsule_New(lent.get(), name, [](PyObject* self) {
    const char* called = PyCapsule_GetName(self);
    if (called == nullptr || std::strncmp(called, "used", 4) == 0) return;
    auto* unused = static_cast<Lent*>(PyCapsule_GetPointer(self, called));
    if (unused != nullptr) unused->deleter(unused);
  });
  if (made == nullptr) throw py::error_already_set();
  (void)lent.release();
  (void)kept.release();
  return py::reinterpret_steal<py::capsule>(made);
}

constexpr std::int32_t kCuda = 2;  // dlpack.h

py::capsule to_dlpack(const std::shared_ptr<ArrayMemory>& memory, int device, std::vector<std::int64_t> shape,
                      bool versioned) {
  auto kept = std::make_unique<Kept>();
  memory->lend();
  kept->memory = memory;
  kept->shape = std::move(shape);
  kept->strides.assign(kept->shape.size(), 1);
  for (std::size_t d = kept->shape.size(); d-- > 1;)
    kept->strides[d - 1] = kept->strides[d] * (kept->shape[d] > 0 ? kept->shape[d] : 1);
  const dlpack::Tensor tensor{memory->data(),
                              {kCuda, device},
                              static_cast<std::int32_t>(kept->shape.size()),
                              {dlpack::kFloat, 32, 1},
                              kept->shape.data(),
                              kept->strides.data(),
                              0};
  if (versioned) return capsule_of<ManagedVersioned>(tensor, std::move(kept), kVersionedName);
  return capsule_of<Managed>(tensor, std::move(kept), kName);
}

}  // namespace

void register_gpu_dlpack(py::module_& m) {
  py::class_<ArrayMemory, std::shared_ptr<ArrayMemory>>(m, "DeviceMemory", "Bytes on a device.")
      .def_property_readonly(
          "address",
          [](const ArrayMemory& memory) { return reinterpret_cast<std::uintptr_t>(memory.data()); })
      .def_property_readonly("bytes", &ArrayMemory::bytes)
      .def("lend", &ArrayMemory::lend,
           "Others will know the address: the bytes are not used again for anything.");
  m.def(
      "from_dlpack", &from_dlpack, py::arg("capsule"),
      "What a capsule holds, taken out of it: (address, device type, device number, dtype code, bits, lanes, "
      "shape, strides or None, read-only, owner).");
  m.def("to_dlpack", &to_dlpack, py::arg("memory"), py::arg("device"), py::arg("shape"), py::arg("versioned"),
        "A capsule that lends dense float32 memory of a CUDA device.");
}

}  // namespace hotloop
