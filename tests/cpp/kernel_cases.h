// SPDX-License-Identifier: Apache-2.0
// Cases of the element-wise kernels, reductions and norms, at sizes around the widths of vectors, of short
// rows and of chunks. Ranges are chosen so that few digits cancel: one unit is compared with another.
#pragma once

#include <algorithm>
#include <string>

#include "kernel_driver.h"

namespace test {

// Around 4, 8 and 16 lanes, four vectors of each, and a chunk of 16384.
inline constexpr int64 kCounts[] = {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 130, 16389};
struct Shape {
  int64 rows, cols;
};
// Short rows (up to 32), long ones, blocks of columns, runs of rows and of 1024 elements.
inline constexpr Shape kShapes[] = {{0, 5},  {1, 1},   {1, 2},    {3, 3},   {5, 4},    {4, 5},
                                    {9, 7},  {2, 8},   {6, 9},    {33, 10}, {3, 16},   {17, 17},
                                    {7, 31}, {65, 32}, {130, 33}, {12, 64}, {70, 150}, {2, 2049}};

inline Case with(Case c, std::string_view without) {
  std::erase_if(c.operands, [&](const Operand& o) { return o.name == without; });
  return c;
}

// f(x) where the result has few digits that cancel; log, sqrt and reciprocal want positive x.
inline void add_unary(std::vector<Case>& cases, std::string_view name) {
  const bool positive = name == "log" || name == "sqrt" || name == "reciprocal";
  const double low = positive ? 0.05 : -6.0;
  static std::vector<std::string> names;  // what the cases' views look at
  names.reserve(1000);
  const std::string_view forward = names.emplace_back(std::string(name) + "_fwd");
  const std::string_view backward = names.emplace_back(std::string(name) + "_bwd");
  for (const int64 n : kCounts) {
    const auto count = static_cast<double>(n);
    cases.push_back({forward, {{"n", count}, {"p0", 0.75}, {"p1", 5}}, {{"y", n}, {"x", n, low, 6}}});
    for (const double layer : {-1.0, 1.0}) {
      cases.push_back({backward,
                       {{"n", count}, {"p0", 0.75}, {"p1", 5}, {"dropout", layer}, {"dropout_row", 3}},
                       {{"dx", n}, {"dy", n}, {"saved", n, positive ? 0.5 : -1.0, 1}}});
    }
  }
}

inline void add_elementwise(std::vector<Case>& cases) {
#define HOTLOOP_UNARY(name, Functor, reads) add_unary(cases, #name);
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
  for (const int64 n : kCounts) {
    const auto count = static_cast<double>(n);
    for (const std::string_view name : {"add", "sub", "mul", "div"}) {
      cases.push_back({name,
                       {{"d0", 1}, {"d1", 1}, {"d2", 1}, {"d3", count}, {"a3", 1}, {"b3", 1}},
                       {{"out", n}, {"a", n}, {"b", n, 0.5, 3}}});
      // a (n, 3) with a row of b (3) for each; then a scalar b
      cases.push_back({name,
                       {{"d0", 1}, {"d1", 1}, {"d2", count}, {"d3", 3}, {"a2", 3}, {"a3", 1}, {"b3", 1}},
                       {{"out", 3 * n}, {"a", 3 * n}, {"b", 3, 0.5, 3}}});
      cases.push_back({name,
                       {{"d0", 1}, {"d1", 1}, {"d2", 1}, {"d3", count}, {"a3", 1}},
                       {{"out", n}, {"a", n}, {"b", 1, 0.5, 3}}});
    }
    for (const double layer : {0.0, 1.0})
      cases.push_back(
          {"dropout", {{"n", count}, {"dropout", layer}, {"dropout_row", 5}}, {{"y", n}, {"x", n}}, 2});
    cases.push_back({"fill", {{"n", count}, {"value", 1.5}}, {{"out", n}}, 0});
    cases.push_back({"clamp", {{"n", count}, {"lo", -0.5}, {"hi", 0.75}}, {{"x", n}}, 0});
    cases.push_back({"copy",
                     {{"d0", 1}, {"d1", 1}, {"d2", 1}, {"d3", count}, {"o3", 1}, {"x3", 1}},
                     {{"out", n}, {"x", n}},
                     0});
    // a transpose of (n, 5), and every second element
    cases.push_back(
        {"copy",
         {{"d0", 1}, {"d1", 1}, {"d2", 5}, {"d3", count}, {"o2", count}, {"o3", 1}, {"x2", 1}, {"x3", 5}},
         {{"out", 5 * n}, {"x", 5 * n}},
         0});
    cases.push_back({"copy",
                     {{"d0", 1}, {"d1", 1}, {"d2", 1}, {"d3", count}, {"o3", 2}, {"x3", 1}},
                     {{"out", 2 * n}, {"x", n}},
                     0});
  }
}

// The largest of whole numbers with ties, for the gradient of the maximum.
inline void add_maximum(std::vector<Case>& cases, int64 outer, int64 reduce, int64 inner) {
  const auto at = [](int64 o, int64 r, int64 i) { return static_cast<double>((7 * o + 5 * r + 3 * i) % 6); };
  std::vector<double> x, largest(static_cast<std::size_t>(outer * inner), -1.0);
  for (int64 o = 0; o < outer; ++o) {
    for (int64 r = 0; r < reduce; ++r) {
      for (int64 i = 0; i < inner; ++i) {
        x.push_back(at(o, r, i));
        double& best = largest[static_cast<std::size_t>(o * inner + i)];
        best = std::max(best, x.back());
      }
    }
  }
  const int64 n = outer * reduce * inner, m = outer * inner;
  const std::vector<Attribute> sizes = {{"outer", static_cast<double>(outer)},
                                        {"reduce", static_cast<double>(reduce)},
                                        {"inner", static_cast<double>(inner)}};
  cases.push_back({"reduce_max_fwd", sizes, {{"out", m}, {"x", n}}, 0});
  cases.push_back(
      {"reduce_max_bwd", sizes, {{"dx", n}, {"dout", m}, {"x", n, 0, 0, x}, {"out", m, 0, 0, largest}}, 2});
}

inline void add_products_in_parts(std::vector<Case>& cases) {
  struct Parts {
    int64 parts, m, n, k, depth;
  };
  // Full parts, one that is short, some past the end, and one longer than a run of k.
  for (const auto& [parts, m, n, k, depth] :
       {Parts{1, 5, 7, 3, 4}, Parts{3, 10, 33, 9, 4}, Parts{4, 7, 20, 5, 2}, Parts{2, 64, 40, 700, 600}}) {
    const auto real = [](int64 count) { return static_cast<double>(count); };
    const Case all{
        "matmul_parts",
        {{"parts", real(parts)}, {"m", real(m)}, {"n", real(n)}, {"k", real(k)}, {"depth", real(depth)}},
        {{"out", parts * m * n}, {"row_sum", parts * m}, {"a", k * m, 0.5, 2}, {"b", k * n, 0.5, 2}}};
    cases.push_back(all);
    cases.push_back(with(all, "row_sum"));
  }
}

inline void add_reductions(std::vector<Case>& cases) {
  for (const auto& [rows, cols] : kShapes) {
    const int64 n = rows * cols;
    const auto r = static_cast<double>(rows), c = static_cast<double>(cols);
    for (const double mean : {0.0, 1.0}) {
      cases.push_back({"reduce_sum",
                       {{"outer", r}, {"reduce", c}, {"inner", 1}, {"mean", mean}},
                       {{"out", rows}, {"x", n, 0, 2}}});
      cases.push_back({"reduce_sum",
                       {{"outer", 2}, {"reduce", r}, {"inner", c}, {"mean", rows > 0 ? mean : 0.0}},
                       {{"out", 2 * cols}, {"x", 2 * n, 0, 2}}});
    }
    if (rows == 0) continue;  // the maximum of nothing is refused
    add_maximum(cases, rows, cols, 1);
    add_maximum(cases, 2, rows, cols);
  }
}

inline void add_softmax(std::vector<Case>& cases) {
  for (const auto& [rows, cols] : kShapes) {
    const int64 n = rows * cols;
    const std::vector<Attribute> sizes = {{"rows", static_cast<double>(rows)},
                                          {"cols", static_cast<double>(cols)}};
    cases.push_back({"softmax_fwd", sizes, {{"y", n}, {"x", n, -8, 8}}});
    cases.push_back({"log_softmax_fwd", sizes, {{"y", n}, {"x", n, -8, 8}}});
    cases.push_back({"softmax_bwd", sizes, {{"dx", n}, {"dy", n}, {"y", n, 0, 1}}});
    cases.push_back({"log_softmax_bwd", sizes, {{"dx", n}, {"dy", n}, {"y", n, -8, 0}}});
  }
}

inline void add_norms(std::vector<Case>& cases) {
  for (const auto& [rows, cols] : kShapes) {
    const int64 n = rows * cols;
    const std::vector<Attribute> sizes = {{"rows", static_cast<double>(rows)},
                                          {"cols", static_cast<double>(cols)}};
    std::vector<Attribute> eps = sizes, batch = sizes;
    eps.push_back({"eps", 1e-2});  // large, so that few digits cancel where the variance of two columns is 0
    batch.insert(batch.end(), {{"eps", 1e-2}, {"momentum", 0.25}});
    const Operand weight{"weight", cols, 0.5, 2}, bias{"bias", cols}, x{"x", n}, dy{"dy", n}, y{"y", n},
        dx{"dx", n};
    const Operand row_mean{"mean", rows, -1, 1}, row_rstd{"rstd", rows, 0.5, 2};
    const Operand mean{"mean", cols, -1, 1}, rstd{"rstd", cols, 0.5, 2};
    const Case layer{"layer_norm_fwd", eps, {y, row_mean, row_rstd, x, weight, bias}, 256};
    const Case rms{"rms_norm_fwd", eps, {y, row_rstd, x, weight}, 256};
    cases.insert(cases.end(), {layer, with(layer, "weight"), with(layer, "bias"), rms, with(rms, "weight")});
    const Case layer_bwd{
        "layer_norm_bwd", sizes, {dx, dy, x, row_mean, row_rstd, weight, {"residual", n}}, 64};
    const Case rms_bwd{"rms_norm_bwd", sizes, {dx, dy, x, row_rstd, weight, {"residual", n}}, 64};
    cases.insert(cases.end(), {layer_bwd, with(layer_bwd, "residual"), rms_bwd, with(rms_bwd, "weight")});
    cases.push_back(
        {"layer_norm_param_bwd", sizes, {{"dweight", cols}, {"dbias", cols}, dy, x, row_mean, row_rstd}, 64});
    const Operand partial{"partial", (rows + 63) / 64 * 2 * cols};
    const Case both{"layer_norm_both_bwd", sizes, {dx, partial, dy, x, row_mean, row_rstd, weight}, 64};
    cases.insert(cases.end(), {both, with(both, "weight")});
    cases.push_back({"rms_norm_param_bwd", sizes, {{"dweight", cols}, dy, x, row_rstd}, 64});
    if (rows == 0) continue;  // no batch has statistics then
    const Operand running{"running_mean", cols}, variance{"running_var", cols, 0.5, 2};
    cases.push_back({"batch_norm_fwd", batch, {y, mean, rstd, running, variance, x, weight, bias}, 512});
    cases.push_back({"batch_norm_eval", eps, {y, x, running, variance, weight, bias}});
    cases.push_back(
        {"batch_norm_bwd", sizes, {dx, {"dweight", cols}, {"dbias", cols}, dy, x, mean, rstd, weight}, 64});
  }
}

}  // namespace test
