// SPDX-License-Identifier: Apache-2.0
#include "bindings/operand.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <numeric>

namespace hotloop {
namespace {

// Types are introduced once, and never taken back: who reads needs no lock.
struct Lender {
  PyTypeObject* type = nullptr;
  int (*lend)(void*, dlpack::Tensor*) = nullptr;
  TakeTensor take = nullptr;
};
constexpr int kMaxLenders = 8;
std::array<Lender, kMaxLenders> lenders;
std::atomic<int> n_lenders{0};
std::mutex introducing;

std::optional<Element> element_of(const dlpack::DataType& type) {
  if (type.lanes != 1 || (type.bits != 32 && type.bits != 64)) return std::nullopt;
  if (type.code == dlpack::kFloat) return type.bits == 64 ? Element::kDouble : Element::kFloat;
  if (type.code == dlpack::kInt) return type.bits == 64 ? Element::kInt64 : Element::kInt32;
  return std::nullopt;
}

bool from_tensor(int (*lend)(void*, dlpack::Tensor*), py::handle value, Operand& x) {
  dlpack::Tensor lent = {};
  if (lend(value.ptr(), &lent) != 0) {
    PyErr_Clear();  // sparse, or not in memory: Python finds out
    return false;
  }
  const std::optional<Element> element = element_of(lent.dtype);
  if (!element || lent.device.type != dlpack::kCpu || lent.byte_offset != 0) return false;
  x.data = lent.data;
  x.element = *element;
  x.ndim = lent.ndim;
  x.shape = lent.shape;
  x.strides = lent.strides;
  for (int d = 0; d < lent.ndim; ++d) x.size *= lent.shape[d];
  return true;
}

// The fields of the array are read in place: a call per field, each with objects to count, would take most of
// the time of an update of small tensors.
bool from_numpy(py::handle value, Operand& x) {
  using Api = py::detail::npy_api;
  const auto* array = py::detail::array_proxy(value.ptr());
  const auto* dtype = py::detail::array_descriptor_proxy(array->descr);
  if (dtype->type_num == Api::NPY_FLOAT_) {
    x.element = Element::kFloat;
    x.unit = 4;
  } else if (dtype->type_num == Api::NPY_DOUBLE_) {
    x.element = Element::kDouble;
    x.unit = 8;
  } else {
    x.unit = py::reinterpret_borrow<py::array>(value).itemsize();
    if (dtype->kind != 'i' || (x.unit != 4 && x.unit != 8)) return false;
    x.element = x.unit == 4 ? Element::kInt32 : Element::kInt64;
  }
  if (dtype->byteorder != '=' || (array->flags & Api::NPY_ARRAY_ALIGNED_) == 0) return false;
  x.data = array->data;
  x.writeable = (array->flags & Api::NPY_ARRAY_WRITEABLE_) != 0;
  x.ndim = array->nd;
  static_assert(sizeof(py::ssize_t) == sizeof(int64));
  x.shape = reinterpret_cast<const int64*>(array->dimensions);
  x.strides = reinterpret_cast<const int64*>(array->strides);
  for (int d = 0; d < x.ndim; ++d) {
    if (x.strides[d] % x.unit != 0) return false;
    x.size *= x.shape[d];
  }
  return true;
}

}  // namespace

bool Operand::is_row_major() const {
  int64 expected = unit;
  for (int d = ndim - 1; d >= 0; --d) {
    if (shape[d] != 1 && strides[d] != expected) return size == 0;
    expected *= shape[d];
  }
  return true;
}

bool Operand::is_dense() const {
  if (is_row_major()) return true;
  std::vector<int> order(static_cast<std::size_t>(ndim));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return strides[a] < strides[b]; });
  int64 expected = unit;
  for (const int d : order) {
    if (shape[d] == 1) continue;
    if (strides[d] != expected) return false;
    expected *= shape[d];
  }
  return true;
}

bool Operand::same_layout(const Operand& other) const {
  if (ndim != other.ndim || element != other.element) return false;
  for (int d = 0; d < ndim; ++d) {
    if (shape[d] != other.shape[d]) return false;
    if (shape[d] != 1 && size != 0 && strides[d] * other.unit != other.strides[d] * unit) return false;
  }
  return true;
}

std::uintptr_t Operand::end() const {
  const bool wide = element == Element::kDouble || element == Element::kInt64;
  return begin() + static_cast<std::uintptr_t>(size) * (wide ? 8 : 4);
}

bool read_operand(py::handle value, Operand& x) {
  x = Operand{};
  const int known = n_lenders.load(std::memory_order_acquire);
  for (int i = 0; i < known; ++i) {
    if (lenders[i].type == Py_TYPE(value.ptr())) return from_tensor(lenders[i].lend, value, x);
  }
  return py::isinstance<py::array>(value) && from_numpy(value, x);
}

std::optional<Operand> read_operand(py::handle value) {
  Operand x;
  return read_operand(value, x) ? std::optional<Operand>(x) : std::nullopt;
}

TakeTensor taker_of(py::handle type) {
  const int known = n_lenders.load(std::memory_order_acquire);
  for (int i = 0; i < known; ++i) {
    if (reinterpret_cast<PyObject*>(lenders[i].type) == type.ptr()) return lenders[i].take;
  }
  return nullptr;
}

bool introduce_type(py::type type) {
  if (!py::hasattr(type, "__dlpack_c_exchange_api__")) return false;
  const py::object capsule = type.attr("__dlpack_c_exchange_api__");
  const auto* api =
      static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) {
    PyErr_Clear();
    return false;
  }
  if (api->header.major != dlpack::kMajorVersion || api->lend == nullptr) return false;
  const std::lock_guard<std::mutex> lock(introducing);
  const int known = n_lenders.load();
  auto* raw = reinterpret_cast<PyTypeObject*>(type.ptr());
  for (int i = 0; i < known; ++i) {
    if (lenders[i].type == raw) return true;
  }
  if (known == kMaxLenders) return false;
  Py_INCREF(raw);  // for good: its address must stay its own
  lenders[known] = {raw, api->lend, api->take};
  n_lenders.store(known + 1, std::memory_order_release);
  return true;
}

}  // namespace hotloop
