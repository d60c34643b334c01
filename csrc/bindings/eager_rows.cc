// SPDX-License-Identifier: Apache-2.0
// The common case of hotloop.ops without Python's border, as eager_matmul.cc: functions of one plain NumPy
// array whose result has its shape. Whatever is not plain gives None, and Python converts, checks and
// explains.
#include <limits>
#include <optional>
#include <utility>

#include "bindings/operand.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

// Elements below which waking another thread does not pay, about 40 us of one: as launch.py counts.
constexpr int64 kAloneUnary = 80'000, kAloneSoftmax = 65'000, kAloneNorm = 130'000, kAloneDropout = 100'000;

// An array and where the result goes: `out` itself or a new array; false if either is not plain.
struct InOut {
  Operand x, y;
  py::object result;

  // in_place: the result may lie where the argument does
  InOut(py::handle x_value, py::handle out_value, bool in_place, int64 most) {
    if (!is_ndarray(x_value) || !read_operand(x_value, x) || !x.is_real() || !x.is_row_major() ||
        x.ndim == 0 || x.size == 0 || x.size > most)
      return;
    py::object out = py::reinterpret_borrow<py::object>(out_value);
    if (out.is_none()) {
      using Api = py::detail::npy_api;
      out = py::array(py::dtype(x.is_double() ? Api::NPY_DOUBLE_ : Api::NPY_FLOAT_),
                      std::vector<py::ssize_t>(x.shape, x.shape + x.ndim));
    }
    if (!is_ndarray(out) || !read_operand(out, y) || !y.writeable || !y.same_layout(x)) return;
    if (y.overlaps(x) && !(in_place && y.data == x.data)) return;
    result = std::move(out);
  }

  int64 last() const { return x.shape[x.ndim - 1]; }
  explicit operator bool() const { return static_cast<bool>(result); }
};

// call(real{}) in the type of the arrays
template <class Call>
py::object in_its_type(const InOut& at, const Call& call) {
  return at.x.is_double() ? call(double{}) : call(float{});
}

// Both arrays are held by the caller's objects.
template <template <class> class Args, class real>
py::object run(const InOut& at, int kernel, Args<real>& args, const StepContext& ctx = {}) {
  args.x = static_cast<const real*>(at.x.data);
  args.y = static_cast<real*>(at.y.data);
  const KernelFn& fn = kernel_in_use(static_cast<Kernel>(kernel), at.x.is_double());
  const py::gil_scoped_release release;
  fn.run_all(&args, ctx);
  return at.result;
}

// Kernels of rows: those of the last dimension.
template <template <class> class Args, class real>
py::object run_rows(const InOut& at, int kernel, Args<real>& args) {
  args.cols = at.last();
  args.rows = at.x.size / args.cols;
  return run(at, kernel, args);
}

// A norm's weight or bias: None, or as long as a row and apart from the result. false if it is not plain.
bool parameter(py::handle value, const InOut& at, const void*& data) {
  data = nullptr;
  if (value.is_none()) return true;
  Operand p;
  if (!is_ndarray(value) || !read_operand(value, p) || p.element != at.x.element || p.ndim != 1 ||
      !p.is_row_major() || p.size != at.last() || p.overlaps(at.y))
    return false;
  data = p.data;
  return true;
}

// An int, no number of another kind; none that an int64 cannot hold.
std::optional<int64> whole(py::handle value) {
  if (PyLong_CheckExact(value.ptr()) == 0) return std::nullopt;
  int overflow = 0;
  const int64 found = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  return overflow == 0 ? std::optional<int64>(found) : std::nullopt;
}

// Whether a norm is over the last dimension alone: its size, or (size,).
bool is_last(py::handle normalized_shape, const InOut& at) {
  PyObject* const value = normalized_shape.ptr();
  const bool tuple = PyTuple_CheckExact(value) != 0 && PyTuple_GET_SIZE(value) == 1;
  return whole(tuple ? py::handle(PyTuple_GET_ITEM(value, 0)) : normalized_shape) == at.last();
}

std::optional<double> real_number(py::handle value) {
  if (PyFloat_CheckExact(value.ptr()) == 0) return std::nullopt;
  return PyFloat_AsDouble(value.ptr());
}

// An element-wise function, by its number among the kernels.
py::object unary(int kernel, py::handle x, py::handle out, double p0, double p1) {
  const InOut at(x, out, /*in_place=*/true, kAloneUnary);
  if (!at) return py::none();
  return in_its_type(at, [&]<class real>(real) {
    UnaryFwdArgs<real> args;
    args.n = at.x.size;
    args.p0 = p0;
    args.p1 = p1;
    return run(at, kernel, args);
  });
}

// Of element i the random number i of (seed, offset).
py::object dropout(py::handle x, double p, std::uint64_t seed, std::uint64_t offset, py::handle out) {
  const InOut at(x, out, /*in_place=*/true, kAloneDropout);
  if (!at) return py::none();
  StepContext ctx;
  ctx.seed = seed;
  ctx.step = offset;
  ctx.dropout = &p;
  return in_its_type(at, [&]<class real>(real) {
    DropoutArgs<real> args;
    args.n = args.dropout_row = at.x.size;
    args.dropout = 0;
    return run(at, static_cast<int>(Kernel::k_dropout), args, ctx);
  });
}

// softmax or log_softmax, by its number among the kernels.
py::object softmax(int kernel, py::handle x, py::handle axis_value, py::handle out) {
  const InOut at(x, out, /*in_place=*/false, kAloneSoftmax);
  const std::optional<int64> axis = whole(axis_value);
  if (!at || !axis || (*axis != -1 && *axis != at.x.ndim - 1)) return py::none();
  return in_its_type(at, [&]<class real>(real) {
    SoftmaxFwdArgs<real> args;
    return run_rows(at, kernel, args);
  });
}

py::object layer_norm(py::handle x, py::handle normalized_shape, py::handle weight, py::handle bias,
                      py::handle eps_value, py::handle out) {
  const InOut at(x, out, /*in_place=*/false, kAloneNorm);
  const void *scale = nullptr, *shift = nullptr;
  const std::optional<double> eps = real_number(eps_value);
  if (!at || !eps || !is_last(normalized_shape, at) || !parameter(weight, at, scale) ||
      !parameter(bias, at, shift))
    return py::none();
  return in_its_type(at, [&]<class real>(real) {
    LayerNormFwdArgs<real> args;
    args.mean = args.rstd = nullptr;
    args.weight = static_cast<const real*>(scale);
    args.bias = static_cast<const real*>(shift);
    args.eps = *eps;
    return run_rows(at, static_cast<int>(Kernel::k_layer_norm_fwd), args);
  });
}

// eps None: the spacing of the dtype at 1.
py::object rms_norm(py::handle x, py::handle normalized_shape, py::handle weight, py::handle eps_value,
                    py::handle out) {
  const InOut at(x, out, /*in_place=*/false, kAloneNorm);
  const void* scale = nullptr;
  const std::optional<double> eps = real_number(eps_value);
  if (!at || (!eps && !eps_value.is_none()) || !is_last(normalized_shape, at) ||
      !parameter(weight, at, scale))
    return py::none();
  return in_its_type(at, [&]<class real>(real) {
    RmsNormFwdArgs<real> args;
    args.rstd = nullptr;
    args.weight = static_cast<const real*>(scale);
    args.eps = eps.value_or(double{std::numeric_limits<real>::epsilon()});
    return run_rows(at, static_cast<int>(Kernel::k_rms_norm_fwd), args);
  });
}

}  // namespace

void register_eager_rows(py::module_& m) {
  m.def(
      "kernel_number", [](const std::string& name) { return find_kernel(name); }, py::arg("name"),
      "Place of a kernel in the list; -1 if there is none.");
  m.def("plain_unary", &unary, "An element-wise kernel on a small plain array; None if it is not.");
  m.def("plain_softmax", &softmax,
        "softmax or log_softmax along the last axis of a small plain array; None if it is not.");
  m.def("plain_dropout", &dropout, "dropout of a small plain array; None if it is not.");
  m.def("plain_layer_norm", &layer_norm,
        "layer_norm over the last axis of a small plain array; None if anything is not.");
  m.def("plain_rms_norm", &rms_norm,
        "rms_norm over the last axis of a small plain array; None if anything is not.");
}

}  // namespace hotloop
