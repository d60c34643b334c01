// SPDX-License-Identifier: Apache-2.0
// The matrix product on whole numbers, where every order of summation is exact: all forms, strides and
// alignments, sizes around the register tiles and the blocks, nothing touched beside the operands; and the
// bits of a row in any batch.
#include "check.h"
#include "kernel_driver.h"

namespace {

using hotloop::int64;
using test::GuardedMemory;

// How B gets to the product: in place, or packed from rows (k, n) or from columns (n, k).
enum class B { kInPlace, kPackedRows, kPackedColumns };

struct Form {
  bool transposed_a;
  B b;
  int64 pad;  // elements between the rows of A, B and out
  bool accumulate;
};

constexpr int64 kMostElements = 400000;
constexpr float kPoison = -12345.0f;

// Column of the kernel table for `real`.
const hotloop::KernelFn& kernel(const hotloop::IsaUnit& unit, const char* name, float) {
  return (*unit.table_float)[hotloop::find_kernel(name)];
}
const hotloop::KernelFn& kernel(const hotloop::IsaUnit& unit, const char* name, double) {
  return (*unit.table_double)[hotloop::find_kernel(name)];
}

template <class Args>
void run(const hotloop::KernelFn& fn, const Args& args) {
  const int64 chunks = fn.chunks(&args);
  for (int64 i = chunks - 1; i >= 0; --i) fn.run(&args, test::context(), i);
}

// The operands of one product, each against a guard page, allocated once.
template <class real>
class Product {
 public:
  Product(const hotloop::IsaUnit& unit, const Form& form) : unit_(unit), form_(form) {}

  // True if out = A B + (bias or what was in out), row sums included, and nothing else changed.
  bool exact(int64 m, int64 n, int64 k) {
    test::Random random(static_cast<std::uint64_t>(m * 10007 + n * 101 + k));
    hotloop::MatmulArgs<real> args;
    args.m = m, args.n = n, args.k = k;
    args.activation = args.dropout = -1;
    args.alpha = 1.0;
    args.beta = form_.accumulate ? 1.0 : 0.0;
    real* a = place_a(args, random);
    std::vector<int> b(static_cast<std::size_t>(k * n));
    for (int& x : b) x = whole(random);
    place_b(args, b);
    args.out_stride = n + form_.pad;
    real* out = out_.place<real>(m * args.out_stride);
    for (int64 i = 0; i < m * args.out_stride; ++i)
      out[i] = static_cast<real>(form_.accumulate ? 3 : kPoison);
    real* bias = bias_.place<real>(n);
    for (int64 j = 0; j < n; ++j) bias[j] = static_cast<real>(whole(random));
    args.out = out;
    args.bias = form_.accumulate ? nullptr : bias;
    args.row_sum = row_sum_.place<real>(m);
    run(kernel(unit_, "matmul", real()), args);
    for (int64 i = 0; i < m; ++i) {
      if (!row_is_exact(args, a, b, i)) return false;
    }
    return a_.intact() && b_.intact() && out_.intact() && bias_.intact() && row_sum_.intact();
  }

 private:
  static int whole(test::Random& random) { return static_cast<int>(random.below(17)) - 8; }

  real* place_a(hotloop::MatmulArgs<real>& args, test::Random& random) {
    const bool t = form_.transposed_a;
    const int64 row = (t ? args.m : args.k) + form_.pad;
    const int64 rows = t ? args.k : args.m;
    args.a_stride_m = t ? 1 : row;
    args.a_stride_k = t ? row : 1;
    const int64 count = rows > 0 ? rows * row - form_.pad : 0;
    real* a = a_.place<real>(count);
    for (int64 i = 0; i < count; ++i) a[i] = static_cast<real>(whole(random));
    args.a = a;
    return a;
  }

  void place_b(hotloop::MatmulArgs<real>& args, const std::vector<int>& b) {
    const bool columns = form_.b == B::kPackedColumns;
    const int64 stride = (columns ? args.k : args.n) + form_.pad;
    const int64 lines = columns ? args.n : args.k;
    const int64 count = lines > 0 ? lines * stride - form_.pad : 0;
    real* source = b_.place<real>(count);
    for (int64 p = 0; p < args.k; ++p) {
      for (int64 j = 0; j < args.n; ++j)
        source[columns ? j * stride + p : p * stride + j] =
            static_cast<real>(b[static_cast<std::size_t>(p * args.n + j)]);
    }
    args.b = source;
    args.b_stride_k = stride;
    if (form_.b == B::kInPlace) return;
    const hotloop::PackPanelsArgs<real> pack{packed_.place<real>((args.n + 15) / 16 * 16 * args.k),
                                             source,
                                             args.k,
                                             args.n,
                                             columns ? 1 : stride,
                                             columns ? stride : 1};
    run(kernel(unit_, "pack_panels", real()), pack);
    args.b = pack.out;
    args.b_packed = 1;
  }

  bool row_is_exact(const hotloop::MatmulArgs<real>& args, const real* a, const std::vector<int>& b,
                    int64 i) const {
    std::vector<int64> want(static_cast<std::size_t>(args.n));
    int64 sum = 0;
    for (int64 p = 0; p < args.k; ++p) {
      const auto x = static_cast<int64>(a[i * args.a_stride_m + p * args.a_stride_k]);
      sum += x;
      for (int64 j = 0; j < args.n; ++j)
        want[static_cast<std::size_t>(j)] += x * b[static_cast<std::size_t>(p * args.n + j)];
    }
    if (args.row_sum[i] != static_cast<real>(sum)) return false;
    for (int64 j = 0; j < args.out_stride; ++j) {
      const double start = form_.accumulate ? 3.0
                           : j < args.n     ? static_cast<double>(args.bias[j])
                                            : static_cast<double>(kPoison);
      const double exact =
          j < args.n ? static_cast<double>(want[static_cast<std::size_t>(j)]) + start : start;
      if (static_cast<double>(args.out[i * args.out_stride + j]) != exact) return false;
    }
    return true;
  }

  const hotloop::IsaUnit& unit_;
  Form form_;
  GuardedMemory a_{kMostElements * sizeof(real)}, b_{kMostElements * sizeof(real)};
  GuardedMemory out_{kMostElements * sizeof(real)}, packed_{kMostElements * sizeof(real)};
  GuardedMemory bias_{4096 * sizeof(real)}, row_sum_{4096 * sizeof(real)};
};

// Heights to past two of the highest tile, 14; widths to past two panels; then the borders of blocks: chunks
// of 96 and 140 rows and 128 columns, runs of 256 and 512 in k, strides of a page.
template <class real>
int wrong_products(const hotloop::IsaUnit& unit, const Form& form) {
  constexpr int64 kDepths[] = {7, 1, 2, 33, 0};
  constexpr int64 kBlocks[][3] = {{97, 129, 257}, {95, 127, 255}, {101, 40, 521}, {7, 300, 300},
                                  {141, 33, 520}, {3, 1024, 257}, {50, 130, 1024}};
  Product<real> product(unit, form);
  int wrong = 0;
  const auto check = [&](int64 m, int64 n, int64 k) {
    if (product.exact(m, n, k)) return;
    if (++wrong <= 3) {
      std::fprintf(stderr, "%s: %d x %d x %d, A%s, B %d, pad %d\n", std::string(unit.name).c_str(), int(m),
                   int(n), int(k), form.transposed_a ? "^T" : "", static_cast<int>(form.b), int(form.pad));
    }
  };
  for (int64 m = 0; m <= 30; ++m) {
    for (int64 n = 0; n <= 35; ++n) check(m, n, kDepths[(m + n) % 5]);
  }
  for (const auto& [m, n, k] : kBlocks) check(m, n, k);
  return wrong;
}

// Rows [first, first + m) of A times B alone have the bits that they have in the whole product.
bool rows_have_their_bits(const hotloop::IsaUnit& unit) {
  constexpr int64 kRows = 61, kColumns = 37, kDepth = 300;
  test::Random random(9);
  std::vector<float> a(kRows * kDepth), b(kDepth * kColumns), whole(kRows * kColumns);
  for (float& x : a) x = static_cast<float>(random.uniform(-1, 1));
  for (float& x : b) x = static_cast<float>(random.uniform(-1, 1));
  hotloop::MatmulArgs<float> args;
  args.out = whole.data(), args.a = a.data(), args.b = b.data();
  args.m = kRows, args.n = args.b_stride_k = args.out_stride = kColumns, args.k = args.a_stride_m = kDepth;
  args.a_stride_k = 1, args.alpha = 1.0, args.activation = args.dropout = -1;
  run(kernel(unit, "matmul", float()), args);
  for (int64 m = 1; m < kRows; m += m < 16 ? 1 : 13) {
    for (int64 first = 0; first + m <= kRows; first += 7) {
      std::vector<float> part(static_cast<std::size_t>(m * kColumns));
      args.out = part.data(), args.a = a.data() + first * kDepth, args.m = m;
      run(kernel(unit, "matmul", float()), args);
      if (std::memcmp(part.data(), whole.data() + first * kColumns, part.size() * sizeof(float)) != 0)
        return false;
    }
  }
  return true;
}

// A NaN reaches its row and no other; 0 times infinity is NaN and not skipped.
bool special_values_propagate(const hotloop::IsaUnit& unit) {
  constexpr int64 kRows = 7, kColumns = 19, kDepth = 5;
  std::vector<float> a(kRows * kDepth, 0.0f), b(kDepth * kColumns, 1.0f), out(kRows * kColumns, kPoison);
  a[3 * kDepth + 2] = std::nanf("");
  b[4 * kColumns + 17] = std::numeric_limits<float>::infinity();
  hotloop::MatmulArgs<float> args;
  args.out = out.data(), args.a = a.data(), args.b = b.data();
  args.m = kRows, args.n = args.b_stride_k = args.out_stride = kColumns, args.k = args.a_stride_m = kDepth;
  args.a_stride_k = 1, args.alpha = 1.0, args.activation = args.dropout = -1;
  run(kernel(unit, "matmul", float()), args);
  for (int64 i = 0; i < kRows; ++i) {
    for (int64 j = 0; j < kColumns; ++j) {
      if (std::isnan(out[static_cast<std::size_t>(i * kColumns + j)]) != (i == 3 || j == 17)) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  for (const hotloop::IsaUnit& unit : hotloop::usable_isas()) {
    for (const bool transposed_a : {false, true}) {
      for (const B b : {B::kInPlace, B::kPackedRows, B::kPackedColumns}) {
        CHECK(wrong_products<float>(unit, {transposed_a, b, 0, false}) == 0);
        CHECK(wrong_products<float>(unit, {transposed_a, b, 3, true}) == 0);
        if (unit.table_double != nullptr)
          CHECK(wrong_products<double>(unit, {transposed_a, b, 1, false}) == 0);
      }
    }
    CHECK(rows_have_their_bits(unit));
    CHECK(special_values_propagate(unit));
  }
  return test::report("matmul");
}
