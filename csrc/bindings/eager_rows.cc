// SPDX-License-Identifier: Apache-2.0
// The common case of hotloop.ops without Python's border, as eager_matmul.cc: functions of one plain NumPy
// array whose result has its shape. Whatever is not plain gives None, and Python converts, checks and
// explains.
#include <limits>
#include <optional>

#include "bindings/operand.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

// Elements below which waking another thread does not pay, about 40 us of one: as launch.py counts.
constexpr int64 kAloneUnary = 80'000, kAloneSoftmax = 65'000, kAloneNorm = 130'000, kAloneDropout = 100'000;

// An array and where the result goes: `out` itself or a new array; `object` is null if either is not plain.
struct InOut {
  Operand x;
  py::array result;
  void* y = nullptr;

  // in_place: the result may lie where the argument does
  InOut(py::handle x_value, py::handle out_value, bool in_place, int64 most) {
    if (!is_ndarray(x_value) || !read_operand(x_value, x) || !x.is_real() || !x.is_row_major() ||
        x.ndim == 0 || x.size == 0 || x.size > most)
      return;
    if (out_value.is_none()) {
      result = py::array(py::dtype(x.is_double() ? Api::NPY_DOUBLE_ : Api::NPY_FLOAT_),
                         std::vector<py::ssize_t>(x.shape, x.shape + x.ndim));
      y = result.mutable_data();
      return;
    }
    Operand out;
    if (!is_ndarray(out_value) || !read_operand(out_value, out) || !out.writeable || !out.same_layout(x))
      return;
    if (overlap(out, x) && !(in_place && out.data == x.data)) return;
    result = py::reinterpret_borrow<py::array>(out_value);
    y = out.data;
  }

  int64 last() const { return x.shape[x.ndim - 1]; }
  explicit operator bool() const { return y != nullptr; }

  static bool overlap(const Operand& a, const Operand& b) {
    return a.begin() < b.end() && b.begin() < a.end();
  }
  // Arrays of subclasses may mean more than their numbers (a mask), which Python looks at.
  static bool is_ndarray(py::handle value) { return Py_TYPE(value.ptr()) == Api::get().PyArray_Type_; }

  using Api = py::detail::npy_api;
};

// Both arrays are held by the caller's objects.
template <class Args>
py::object run(const InOut& at, int kernel, const Args& args, const StepContext& ctx = {}) {
  const IsaUnit& unit = find_isa(at.x.is_double() ? "generic" : "");
  const KernelFn& fn = (at.x.is_double() ? *unit.table_double : *unit.table_float)[kernel];
  const py::gil_scoped_release release;
  fn.run_all(&args, ctx);
  return at.result;
}

// An element-wise function, by its number among the kernels.
template <class real>
py::object unary(const InOut& at, int kernel, double p0, double p1) {
  UnaryFwdArgs<real> args;
  args.x = static_cast<const real*>(at.x.data);
  args.y = static_cast<real*>(at.y);
  args.n = at.x.size;
  args.p0 = p0;
  args.p1 = p1;
  return run(at, kernel, args);
}

// Along the last axis.
template <class real>
py::object softmax(const InOut& at, int kernel) {
  SoftmaxFwdArgs<real> args;
  args.x = static_cast<const real*>(at.x.data);
  args.y = static_cast<real*>(at.y);
  args.cols = at.last();
  args.rows = at.x.size / args.cols;
  return run(at, kernel, args);
}

// Of element i the random number i of (seed, offset).
template <class real>
py::object dropout(const InOut& at, double p, std::uint64_t seed, std::uint64_t offset) {
  DropoutArgs<real> args;
  args.x = static_cast<const real*>(at.x.data);
  args.y = static_cast<real*>(at.y);
  args.n = args.dropout_row = at.x.size;
  args.dropout = 0;
  StepContext ctx;
  ctx.seed = seed;
  ctx.step = offset;
  ctx.dropout = &p;
  return run(at, static_cast<int>(Kernel::k_dropout), args, ctx);
}

// A norm's weight or bias: None, or as long as a row and apart from the result. false if it is not plain.
bool parameter(py::handle value, const InOut& at, const void*& data) {
  data = nullptr;
  if (value.is_none()) return true;
  Operand p;
  if (!InOut::is_ndarray(value) || !read_operand(value, p) || p.element != at.x.element || p.ndim != 1 ||
      !p.is_row_major() || p.size != at.last())
    return false;
  const auto begin = reinterpret_cast<std::uintptr_t>(at.y);
  const std::uintptr_t end = begin + (at.x.end() - at.x.begin());
  data = p.data;
  return p.end() <= begin || end <= p.begin();
}

template <class real>
py::object layer_norm(const InOut& at, const void* weight, const void* bias, double eps) {
  LayerNormFwdArgs<real> args;
  args.y = static_cast<real*>(at.y);
  args.mean = args.rstd = nullptr;
  args.x = static_cast<const real*>(at.x.data);
  args.weight = static_cast<const real*>(weight);
  args.bias = static_cast<const real*>(bias);
  args.cols = at.last();
  args.rows = at.x.size / args.cols;
  args.eps = eps;
  return run(at, static_cast<int>(Kernel::k_layer_norm_fwd), args);
}

template <class real>
py::object rms_norm(const InOut& at, const void* weight, double eps) {
  RmsNormFwdArgs<real> args;
  args.y = static_cast<real*>(at.y);
  args.rstd = nullptr;
  args.x = static_cast<const real*>(at.x.data);
  args.weight = static_cast<const real*>(weight);
  args.cols = at.last();
  args.rows = at.x.size / args.cols;
  args.eps = eps;
  return run(at, static_cast<int>(Kernel::k_rms_norm_fwd), args);
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

}  // namespace

void register_eager_rows(py::module_& m) {
  m.def(
      "kernel_number", [](const std::string& name) { return find_kernel(name); }, py::arg("name"),
      "Place of a kernel in the list; -1 if there is none.");
  m.def(
      "plain_unary",
      [](int kernel, py::handle x, py::handle out, double p0, double p1) -> py::object {
        const InOut at(x, out, /*in_place=*/true, kAloneUnary);
        if (!at) return py::none();
        return at.x.is_double() ? unary<double>(at, kernel, p0, p1) : unary<float>(at, kernel, p0, p1);
      },
      "An element-wise kernel on a small plain array; None if it is not.");
  m.def(
      "plain_softmax",
      [](int kernel, py::handle x, py::handle axis_value, py::handle out) -> py::object {
        const InOut at(x, out, /*in_place=*/false, kAloneSoftmax);
        const std::optional<int64> axis = whole(axis_value);
        if (!at || !axis || (*axis != -1 && *axis != at.x.ndim - 1)) return py::none();
        return at.x.is_double() ? softmax<double>(at, kernel) : softmax<float>(at, kernel);
      },
      "softmax or log_softmax along the last axis of a small plain array; None if it is not.");
  m.def(
      "plain_dropout",
      [](py::handle x, double p, std::uint64_t seed, std::uint64_t offset, py::handle out) -> py::object {
        const InOut at(x, out, /*in_place=*/true, kAloneDropout);
        if (!at) return py::none();
        return at.x.is_double() ? dropout<double>(at, p, seed, offset) : dropout<float>(at, p, seed, offset);
      },
      "dropout of a small plain array; None if it is not.");
  m.def(
      "plain_layer_norm",
      [](py::handle x, py::handle normalized_shape, py::handle weight, py::handle bias, py::handle eps_value,
         py::handle out) -> py::object {
        const InOut at(x, out, /*in_place=*/false, kAloneNorm);
        const void *scale = nullptr, *shift = nullptr;
        const std::optional<double> eps = real_number(eps_value);
        if (!at || !eps || !is_last(normalized_shape, at) || !parameter(weight, at, scale) ||
            !parameter(bias, at, shift))
          return py::none();
        return at.x.is_double() ? layer_norm<double>(at, scale, shift, *eps)
                                : layer_norm<float>(at, scale, shift, *eps);
      },
      "layer_norm over the last axis of a small plain array; None if anything is not.");
  m.def(
      "plain_rms_norm",
      [](py::handle x, py::handle normalized_shape, py::handle weight, py::handle eps_value,
         py::handle out) -> py::object {
        const InOut at(x, out, /*in_place=*/false, kAloneNorm);
        const void* scale = nullptr;
        if (!at || !is_last(normalized_shape, at) || !parameter(weight, at, scale)) return py::none();
        const double spacing = at.x.is_double() ? std::numeric_limits<double>::epsilon()
                                                : double{std::numeric_limits<float>::epsilon()};
        const std::optional<double> eps = eps_value.is_none() ? spacing : real_number(eps_value);
        if (!eps) return py::none();
        return at.x.is_double() ? rms_norm<double>(at, scale, *eps) : rms_norm<float>(at, scale, *eps);
      },
      "rms_norm over the last axis of a small plain array; None if anything is not.");
}

}  // namespace hotloop
