// SPDX-License-Identifier: Apache-2.0
// The parts of the extension module; module.cc calls each once.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "runtime/program.h"
#include "runtime/source.h"

namespace hotloop {

namespace py = pybind11;

void register_kernels(py::module_& m);
void register_gpu(py::module_& m);
void register_gpu_program(py::module_& m);
void register_gpu_epoch(py::module_& m);
void register_gpu_dlpack(py::module_& m);
void register_gpu_arrays(py::module_& m);
void register_gpu_passes(py::module_& m);
void register_gpu_chain(py::module_& m);
void register_device(py::module_& m);
void register_build_info(py::module_& m);
void register_eager(py::module_& m);
void register_eager_matmul(py::module_& m);
void register_eager_rows(py::module_& m);
void register_eager_loss(py::module_& m);
void register_update_many(py::module_& m);
void register_plan(py::module_& m);
void register_session(py::module_& m);
void register_step(py::module_& m);
void register_passes(py::module_& m);
void register_epoch(py::module_& m);

// "float32" or "float64"
Real real_of(const std::string& dtype);

// "float32", "tf32" or "bf16"
Precision precision_of(const std::string& name);

// Throws TypeError for a dtype that no plan reads.
ElementType element_type(const py::array& array);

// Runs steps; on one thread alone where `choice` (null: no choice) has found that to be faster.
void run_on_team(Program& program, ThreadTeam& team, int64 rows, int64 begin, int64 end,
                 const StepContext& ctx, TeamChoice* choice);

// A view of memory that `owner` keeps alive.
template <class T>
py::array_t<T> view(T* data, int64 size, py::handle owner) {
  return py::array_t<T>({static_cast<py::ssize_t>(size)}, {static_cast<py::ssize_t>(sizeof(T))}, data, owner);
}

}  // namespace hotloop
