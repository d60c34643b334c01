// SPDX-License-Identifier: Apache-2.0
// The extension module: registers its parts and translates broken invariants. Nothing else.
#include "bindings/register.h"
#include "core/error.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  using namespace hotloop;
  m.doc() = "Native kernels, plans and epochs of hotloop. Private: the Python package is the public face.";
  m.attr("__version__") = HOTLOOP_VERSION;

  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const InternalError& error) {
      const py::object type = py::module_::import("hotloop.errors").attr("InternalError");
      const std::string text = std::string(error.what()) + "\nThis is a defect of hotloop " +
                               HOTLOOP_VERSION + ", not of your call; please report it with this message.";
      PyErr_SetString(type.ptr(), text.c_str());
    }
  });

  register_kernels(m);
  register_device(m);
  register_build_info(m);
  register_gpu(m);
  register_gpu_dlpack(m);
  register_gpu_arrays(m);
  register_gpu_chain(m);
  register_gpu_passes(m);
  register_eager(m);
  register_eager_matmul(m);
  register_eager_rows(m);
  register_eager_loss(m);
  register_update_many(m);
  register_plan(m);
  register_session(m);
  register_step(m);
  register_passes(m);
  register_epoch(m);
  register_gpu_program(m);
  register_gpu_epoch(m);
}
