// SPDX-License-Identifier: Apache-2.0
// The parts of the extension module; module.cc calls each once.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "runtime/plan.h"

namespace hotloop {

namespace py = pybind11;

void register_kernels(py::module_& m);
void register_device(py::module_& m);
void register_plan(py::module_& m);
void register_session(py::module_& m);

// "float32" or "float64"
Real real_of(const std::string& dtype);

// A view of memory that `owner` keeps alive.
template <class T>
py::array_t<T> view(T* data, int64 size, py::handle owner) {
  return py::array_t<T>({static_cast<py::ssize_t>(size)}, {static_cast<py::ssize_t>(sizeof(T))}, data, owner);
}

}  // namespace hotloop
