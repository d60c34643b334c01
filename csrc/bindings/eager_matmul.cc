// SPDX-License-Identifier: Apache-2.0
// The common case of hotloop.ops.matmul without Python's border: NumPy matrices as the kernel reads them, and
// too small for a second thread. Looking at such arrays in Python would take longer than the kernel. Whatever
// is not plain gives None, and Python converts, checks and explains.
#include <memory>
#include <optional>

#include "bindings/operand.h"
#include "cpu/aligned_block.h"
#include "kernels/isa.h"

namespace hotloop {
namespace {

// Work of one thread below which waking another does not pay: about 40 us.
constexpr int64 kAloneMultiplyAdds = int64{1} << 21;  // 128^3
// A product of few rows waits for B more than it computes, and a second thread would not find it faster.
constexpr int64 kFewRows = 16;
constexpr int64 kAloneElementsOfB = 1'000'000;

struct Matrix {
  py::array array;
  bool is_double = false;
  int64 rows = 0, cols = 0;
  int64 row_stride = 0, col_stride = 0;  // elements

  std::uintptr_t begin() const { return reinterpret_cast<std::uintptr_t>(array.data()); }
  std::uintptr_t end() const {
    const int64 last = rows * cols == 0 ? 0 : (rows - 1) * row_stride + (cols - 1) * col_stride + 1;
    return begin() + static_cast<std::uintptr_t>(last * array.itemsize());
  }
  bool dense() const { return (col_stride == 1 || cols <= 1) && (row_stride == cols || rows <= 1); }
  bool overlaps(const Matrix& other) const { return begin() < other.end() && other.begin() < end(); }
};

// An array of one or two dimensions in native float32 or float64, with strides that do not walk backward.
std::optional<Matrix> plain(py::handle value, int dims) {
  if (!is_ndarray(value)) return std::nullopt;
  Matrix m;
  m.array = py::reinterpret_borrow<py::array>(value);
  const int type = m.array.dtype().num();
  m.is_double = type == py::detail::npy_api::NPY_DOUBLE_;
  const bool native = m.array.dtype().byteorder() == '=';
  const bool aligned = (m.array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if ((!m.is_double && type != py::detail::npy_api::NPY_FLOAT_) || !native || !aligned) return std::nullopt;
  if (m.array.ndim() != dims) return std::nullopt;
  const py::ssize_t item = m.array.itemsize();
  for (int d = 0; d < dims; ++d)
    if (m.array.strides(d) < 0 || m.array.strides(d) % item != 0) return std::nullopt;
  m.rows = dims == 2 ? m.array.shape(0) : 1;
  m.cols = m.array.shape(dims - 1);
  m.row_stride = dims == 2 ? m.array.strides(0) / item : m.cols;
  m.col_stride = m.array.strides(dims - 1) / item;
  return m;
}

Matrix transposed(Matrix m) {
  std::swap(m.rows, m.cols);
  std::swap(m.row_stride, m.col_stride);
  return m;
}

template <class Args>
void run_alone(Kernel kernel, const Args& args, bool is_double) {
  kernel_in_use(kernel, is_double).run_all(&args, StepContext{});
}

// B in panels, in memory that this thread keeps.
template <class real>
const real* in_panels(const Matrix& b) {
  thread_local std::unique_ptr<AlignedBlock> block;
  const std::size_t size =
      static_cast<std::size_t>(ceil_div(b.cols, kPanel) * kPanel * b.rows) * sizeof(real);
  if (block == nullptr || block->bytes() < size) block = std::make_unique<AlignedBlock>(size);
  PackPanelsArgs<real> args;
  args.out = reinterpret_cast<real*>(block->data());
  args.x = static_cast<const real*>(b.array.data());
  args.k = b.rows;
  args.n = b.cols;
  args.stride_k = b.row_stride;
  args.stride_n = b.col_stride;
  run_alone(Kernel::k_pack_panels, args, sizeof(real) == sizeof(double));
  return args.out;
}

template <class real>
void product(const Matrix& a, const Matrix& b, const Matrix* bias, int activation, double p0, double p1,
             double alpha, double beta, real* out, void* saved, void* row_sum) {
  MatmulArgs<real> args;
  args.out = out;
  args.saved = static_cast<real*>(saved);
  args.row_sum = static_cast<real*>(row_sum);
  args.a = static_cast<const real*>(a.array.data());
  args.m = a.rows;
  args.n = b.cols;
  args.k = a.cols;
  args.a_stride_m = a.row_stride;
  args.a_stride_k = a.col_stride;
  args.b_packed = b.col_stride == 1 || b.cols <= 1 ? 0 : 1;
  args.b = args.b_packed != 0 ? in_panels<real>(b) : static_cast<const real*>(b.array.data());
  args.b_stride_k = b.row_stride;
  args.b_stride_n = 1;
  args.bias = bias == nullptr ? nullptr : static_cast<const real*>(bias->array.data());
  args.out_stride = b.cols;
  args.activation = activation;
  args.dropout = -1;
  args.alpha = alpha;
  args.beta = beta;
  args.p0 = p0;
  args.p1 = p1;
  run_alone(Kernel::k_matmul, args, sizeof(real) == sizeof(double));
}

bool small(int64 m, int64 n, int64 k) {
  return m * n * k <= kAloneMultiplyAdds || (m <= kFewRows && n * k <= kAloneElementsOfB);
}

// Memory for what a caller wants beside the product: new arrays of the right size and dtype, or None.
void* extra(const py::object& value) {
  return value.is_none() ? nullptr : py::reinterpret_borrow<py::array>(value).mutable_data();
}

// activation(alpha a b + beta out + bias) of matrices, or None. saved, row_sum: see MatmulArgs.
py::object matmul(py::handle a_value, py::handle b_value, py::handle bias_value, int activation,
                  bool transpose_a, bool transpose_b, py::handle out_value, double p0, double p1,
                  double alpha, double beta, const py::object& saved_value, const py::object& row_sum_value) {
  std::optional<Matrix> a = plain(a_value, 2), b = plain(b_value, 2), bias;
  if (!a || !b || a->is_double != b->is_double) return py::none();
  if (transpose_a) a = transposed(*a);
  if (transpose_b) b = transposed(*b);
  if (a->cols != b->rows || !small(a->rows, b->cols, a->cols)) return py::none();
  if (!bias_value.is_none()) {
    bias = plain(bias_value, 1);
    if (!bias || bias->is_double != a->is_double || bias->cols != b->cols || !bias->dense())
      return py::none();
  }
  py::object result;
  if (out_value.is_none()) {
    if (beta != 0.0) return py::none();
    result = py::array(a->array.dtype(), std::vector<py::ssize_t>{a->rows, b->cols});
  } else {
    const std::optional<Matrix> out = plain(out_value, 2);
    const bool fits = out && out->is_double == a->is_double && out->rows == a->rows && out->cols == b->cols &&
                      out->dense() && out->array.writeable();
    if (!fits || out->overlaps(*a) || out->overlaps(*b) || (bias && out->overlaps(*bias))) return py::none();
    result = out->array;
  }
  void* out = py::reinterpret_borrow<py::array>(result).mutable_data();
  void* saved = extra(saved_value);
  void* row_sum = extra(row_sum_value);
  const py::gil_scoped_release release;  // the arrays are held
  const Matrix* shift = bias ? &*bias : nullptr;
  if (a->is_double) {
    product<double>(*a, *b, shift, activation, p0, p1, alpha, beta, static_cast<double*>(out), saved,
                    row_sum);
  } else {
    product<float>(*a, *b, shift, activation, p0, p1, alpha, beta, static_cast<float*>(out), saved, row_sum);
  }
  return result;
}

}  // namespace

void register_eager_matmul(py::module_& m) {
  m.def("plain_matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("activation"),
        py::arg("transpose_a"), py::arg("transpose_b"), py::arg("out"), py::arg("p0"), py::arg("p1"),
        py::arg("alpha"), py::arg("beta"), py::arg("saved") = py::none(), py::arg("row_sum") = py::none(),
        "activation(alpha a b + beta out + bias) of small plain matrices; None if they are not.");
}

}  // namespace hotloop
