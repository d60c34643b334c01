// SPDX-License-Identifier: Apache-2.0
// The element-wise functions of every unit in units of the last place of the exact value, over all of float32
// at a fixed stride, and at the values where formulas break: zeros, infinities, NaN, the ends of the range.
#include <algorithm>

#include "check.h"
#include "kernel_driver.h"

namespace {

using Function = double (*)(double);
constexpr double kMax = std::numeric_limits<float>::max(), kNormal = std::numeric_limits<float>::min();
constexpr double kInf = std::numeric_limits<double>::infinity();

double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double gelu(double x) { return 0.5 * x * (1 + std::erf(x * 0.70710678118654752440)); }
double reciprocal(double x) { return 1 / x; }

struct Row {
  std::string_view kernel;
  Function exact;
  double p0, p1, least, most;  // the arguments in [least, most] are judged
  double bound;                // in ulp
};

// gelu: for negative x, 1 + erf cancels, as in torch. elu: expm1. softplus: log1p of exp.
constexpr Row kRows[] = {{"exp_fwd", std::exp, 0, 0, -kInf, kInf, 1.0},
                         {"log_fwd", std::log, 0, 0, -kInf, kInf, 0.9},
                         {"tanh_fwd", std::tanh, 0, 0, -kInf, kInf, 2.3},
                         {"sigmoid_fwd", sigmoid, 0, 0, -kInf, kInf, 2.3},
                         {"softplus_fwd", softplus, 1, kInf, -kInf, kInf, 1.7},
                         {"elu_fwd", std::expm1, 1, 0, -kInf, 0, 1.6},
                         {"gelu_fwd", gelu, 0, 0, 0, kInf, 1.7},
                         {"sqrt_fwd", std::sqrt, 0, 0, -kInf, kInf, 0.5},
                         {"reciprocal_fwd", reciprocal, 0, 0, -kInf, kInf, 0.5}};

std::vector<float> apply(const hotloop::IsaUnit& unit, std::string_view kernel, const std::vector<float>& x,
                         double p0, double p1) {
  const hotloop::FlushDenormals flush;
  std::vector<float> y(x.size(), -123.0f);
  const hotloop::UnaryFwdArgs<float> args{y.data(), x.data(), static_cast<hotloop::int64>(x.size()), p0, p1};
  const hotloop::KernelFn& fn = (*unit.table_float)[hotloop::find_kernel(kernel)];
  for (hotloop::int64 i = 0; i < fn.chunks(&args); ++i) fn.run(&args, test::context(), i);
  return y;
}

// Distance from `exact` in its last place as a float; infinite where only one of them is special.
double ulps(float got, double exact) {
  const auto y = static_cast<double>(got);
  if (std::isnan(exact) || std::isnan(y)) return std::isnan(exact) && std::isnan(y) ? 0.0 : kInf;
  if (std::fabs(exact) < kNormal && std::fabs(y) <= kNormal) return 0.0;  // denormals are flushed
  if (std::fabs(std::fabs(exact) / kMax - 1) < 1e-6) return 0.0;          // half an ulp decides on infinity
  if (std::fabs(exact) > kMax) return y == std::copysign(kInf, exact) ? 0.0 : kInf;
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::fabs(y - exact) / std::ldexp(1.0, std::max(exponent, -125) - 24);
}

// Every stride-th bit pattern that is a normal number or infinite.
std::vector<float> arguments(const Row& row, std::uint32_t stride) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (1ull << 32); bits += stride) {
    const auto pattern = static_cast<std::uint32_t>(bits);
    float value;
    std::memcpy(&value, &pattern, sizeof value);
    const auto wide = static_cast<double>(value);
    if (std::fabs(wide) >= kNormal && wide >= row.least && wide <= row.most) x.push_back(value);
  }
  return x;
}

bool within_bound(const hotloop::IsaUnit& unit, const Row& row) {
  const std::vector<float> x = arguments(row, 4099), y = apply(unit, row.kernel, x, row.p0, row.p1);
  double worst = 0.0, at = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double error = ulps(y[i], row.exact(static_cast<double>(x[i])));
    if (error > worst) worst = error, at = static_cast<double>(x[i]);
  }
  if (worst > row.bound || x.size() < 400000) {
    std::fprintf(stderr, "%s %s: %.3f ulp at %g, %zu values\n", std::string(unit.name).c_str(),
                 std::string(row.kernel).c_str(), worst, at, x.size());
    return false;
  }
  return true;
}

// Both NaN, the same infinity, the same signed zero, or a few ulp apart.
bool alike(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  if (a == 0.0f || b == 0.0f) return a == b && std::signbit(a) == std::signbit(b);
  return std::fabs(a - b) <= 1e-6f * std::fabs(b);
}

// The functions of the vector units at special arguments are those of libm.
bool special_values_are_libms(const hotloop::IsaUnit& unit) {
  const float inf = static_cast<float>(kInf), most = static_cast<float>(kMax),
              least = static_cast<float>(kNormal);
  const std::vector<float> x = {0.0f,   -0.0f,   inf,   -inf,   std::nanf(""), 1.0f,  -1.0f, 89.0f, -89.0f,
                                110.0f, -110.0f, 20.0f, -20.0f, most,          -most, least, 0.5f,  -0.25f};
  bool good = true;
  const auto compare = [&](std::string_view kernel) {
    const std::vector<float> got = apply(unit, kernel, x, 1, 20);
    const std::vector<float> want = apply(hotloop::find_isa("generic"), kernel, x, 1, 20);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (alike(got[i], want[i])) continue;
      good = false;
      std::fprintf(stderr, "%s %s(%g) is %g, not %g\n", std::string(unit.name).c_str(),
                   std::string(kernel).c_str(), static_cast<double>(x[i]), static_cast<double>(got[i]),
                   static_cast<double>(want[i]));
    }
  };
#define HOTLOOP_UNARY(name, Functor, reads) compare(#name "_fwd");
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
  return good;
}

}  // namespace

int main() {
  for (const hotloop::IsaUnit& unit : hotloop::usable_isas()) {
    for (const Row& row : kRows) CHECK(within_bound(unit, row));
    CHECK(special_values_are_libms(unit));
  }
  return test::report("vec_math");
}
