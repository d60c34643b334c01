// SPDX-License-Identifier: Apache-2.0
// An array of whoever, as kernels see it: NumPy's, or a tensor of a type that Python has introduced. Reading
// one takes some 20 ns, so a call may look at hundreds. What cannot be read here is no error: Python
// explains.
#pragma once

#include <optional>

#include "bindings/dlpack.h"
#include "bindings/register.h"

namespace hotloop {

enum class Element { kFloat, kDouble, kInt32, kInt64 };

struct Operand {
  void* data = nullptr;
  Element element = Element::kFloat;
  bool writeable = true;
  int ndim = 0;
  int64 size = 1;
  const int64* shape = nullptr;    // the owner's, and so are the strides: to be read before it may change
  const int64* strides = nullptr;  // `unit` to an element
  int64 unit = 1;

  bool is_double() const { return element == Element::kDouble; }
  bool is_real() const { return element == Element::kFloat || is_double(); }
  // In the order of its dimensions, without gaps.
  bool is_row_major() const;
  // Without gaps in some order of its dimensions, such as channels last.
  bool is_dense() const;
  // The same elements at the same places, whatever they are.
  bool same_layout(const Operand& other) const;
  int64 stride(int d) const { return strides[d] / unit; }
  std::uintptr_t begin() const { return reinterpret_cast<std::uintptr_t>(data); }
  std::uintptr_t end() const;  // past a dense operand
  // Whether two dense operands share a byte.
  bool overlaps(const Operand& other) const { return begin() < other.end() && other.begin() < end(); }
};

// An array of NumPy's own type: those of subclasses may mean more than their numbers (a mask), which Python
// looks at.
inline bool is_ndarray(py::handle value) {
  return Py_TYPE(value.ptr()) == py::detail::npy_api::get().PyArray_Type_;
}

// Whether it is an array that is known here, in the memory of the CPU, of a dtype above; then x is its
// fields. In place, because a copy of what was just written, as an optional would be, waits for it: 10 ns.
bool read_operand(py::handle value, Operand& x);
std::optional<Operand> read_operand(py::handle value);

// What makes a tensor of an introduced type; null for others.
using TakeTensor = int (*)(dlpack::Managed* tensor, void** object);
TakeTensor taker_of(py::handle type);

// Makes tensors of exactly this type readable, through the DLPack table of the type; false if it has none.
bool introduce_type(py::type type);

}  // namespace hotloop
