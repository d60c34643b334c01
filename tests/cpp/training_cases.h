// SPDX-License-Identifier: Apache-2.0
// Cases of losses, metrics, embeddings and optimisers, at the sizes of kernel_cases.h.
#pragma once

#include "kernel_cases.h"

namespace test {

inline void add_losses(std::vector<Case>& cases) {
  for (const auto& [rows, cols] : kShapes) {
    const int64 n = rows * cols;
    const std::vector<Attribute> sizes = {{"rows", static_cast<double>(rows)},
                                          {"cols", static_cast<double>(cols)}};
    std::vector<Attribute> smooth = sizes, delta = sizes;
    smooth.push_back({"label_smoothing", 0.25});
    delta.push_back({"p0", 0.75});
    const Operand row_loss{"row_loss", rows}, drow{"drow", rows, 0, 0.25}, logits{"logits", n, -8, 8};
    const Operand labels{"labels", rows, 0, static_cast<double>(cols)}, probs{"probs", n, 0, 1};
    for (const auto& attributes : {sizes, smooth}) {
      const Case c{"cross_entropy", attributes, {row_loss, {"dlogits", n}, logits, labels, drow}};
      Case soft = with(c, "labels");
      soft.operands.push_back(probs);
      cases.insert(cases.end(), {c, with(c, "dlogits"), with(c, "row_loss"), soft, with(soft, "dlogits")});
    }
#define HOTLOOP_LOSS(name, Functor) \
  cases.push_back({#name, delta, {row_loss, {"dpred", n}, {"pred", n}, {"target", n, 0, 1}, drow}});
#include "kernels/loss.def"
#undef HOTLOOP_LOSS
    cases.push_back(
        {"bce_with_logits", sizes, {row_loss, {"pred", n}, {"target", n, 0, 1}, {"pos_weight", cols, 1, 3}}});
    cases.push_back({"accuracy", sizes, {{"totals", 2}, logits, labels}, 0});
    cases.push_back({"accuracy", sizes, {{"totals", 2}, logits, probs}, 0});
    for (const double k : {1.0, 2.0, 5.0}) {
      std::vector<Attribute> top = sizes;
      top.push_back({"top_k", k});
      cases.push_back({"top_k_accuracy", top, {{"totals", 2}, logits, labels}, 0});
    }
    cases.push_back({"binary_accuracy", sizes, {{"totals", 2}, logits, {"target", n, 0, 1}}, 0});
    cases.push_back({"regression_stats", sizes, {{"totals", 1 + 4 * cols}, {"pred", n}, {"target", n}}});
    const std::vector<Attribute> batch = {sizes[0]};
    cases.push_back(
        {"loss_stats", batch, {{"loss", 1}, {"totals", 2}, {"row_loss", rows}, {"weight", rows, 0, 2}}});
    const Case weights{"row_weight",
                       batch,
                       {{"weight", rows},
                        {"drow", rows},
                        {"total", 1},
                        {"sample_weight", rows, 0, 2},
                        {"class_weight", cols, 0, 2},
                        labels}};
    cases.insert(cases.end(), {weights, with(weights, "sample_weight")});
  }
}

inline void add_embeddings(std::vector<Case>& cases) {
  for (const auto& [rows, cols] : kShapes) {
    const int64 n = rows * cols;
    const std::vector<Attribute> sizes = {
        {"n", static_cast<double>(rows)}, {"vocab", 7}, {"dim", static_cast<double>(cols)}};
    cases.push_back({"embedding_fwd", sizes, {{"y", n}, {"weight", 7 * cols}, {"ids", rows, 0, 7}}, 0});
    cases.push_back({"embedding_bwd", sizes, {{"dweight", 7 * cols}, {"dy", n}, {"ids", rows, 0, 7}}});
  }
}

// Gradients that share an update, and the average of the parameters.
inline void add_sums_of_steps(std::vector<Case>& cases) {
  for (const int64 n : kCounts) {
    const std::vector<Attribute> count = {{"n", static_cast<double>(n)}};
    // keep, weight, last, scale: the first batch, one between, the last of several, the only one
    const std::vector<double> batches[] = {{0, 1, 0, 1}, {1, 0.5, 0, 0.5}, {1, 0.75, 1, 0.25}, {0, 1, 1, 1}};
    for (const auto& scalars : batches)
      cases.push_back({"accumulate", count, {{"sum", n}, {"grad", n}, {"scalars", 4, 0, 0, scalars}}});
    for (const double weight : {0.0, 0.125, 1.0})
      cases.push_back({"ema", count, {{"average", n}, {"param", n}, {"scalars", 1, 0, 0, {weight}}}});
  }
  for (const double total : {0.0, 3.0}) {
    const Operand weights{"total", 1, 0, 0, {total}}, scalars{"scalars", 4};
    cases.push_back({"accumulate_begin", {}, {scalars, {"tally", 2, 0, 0, {5, 2}}, weights}});
    for (const double counter : {0.0, 7.0})
      cases.push_back(
          {"ema_begin", {{"decay", 0.75}}, {{"scalars", 1}, {"counter", 1, 0, 0, {counter}}, weights}});
  }
}

inline void add_optimizers(std::vector<Case>& cases) {
  const Operand scalars{"scalars", 8, 0, 0, {0, 0.02, 0.05, 0.5, 0.75, 0.25, 11, 3}};
  const Operand skipped{"scalars", 8, 0, 0, {1, 0.02, 0.05, 0.5, 0.75, 0.25, 11, 3}};
  for (const int64 n : kCounts) {
    const auto count = static_cast<double>(n);
    const Operand param{"param", n}, grad{"grad", n}, square{"exp_avg_sq", n, 0.1, 2},
        buffer{"momentum_buffer", n};
    for (const Operand& step : {scalars, skipped}) {
      for (const double flag : {0.0, 1.0}) {
        cases.push_back({"adam",
                         {{"n", count}, {"decoupled", flag}, {"beta1", 0.9}, {"beta2", 0.999}, {"eps", 1e-8}},
                         {param, {"exp_avg", n}, square, grad, step}});
        cases.push_back(
            {"sgd", {{"n", count}, {"nesterov", flag}, {"momentum", 0.9}}, {param, buffer, grad, step}});
      }
      cases.push_back({"sgd", {{"n", count}}, {param, grad, step}});
      const Case rmsprop{"rmsprop",
                         {{"n", count}, {"alpha", 0.99}, {"eps", 1e-8}, {"momentum", 0.9}},
                         {param, {"square_avg", n, 0.1, 2}, buffer, grad, step}};
      cases.insert(cases.end(), {rmsprop, with(rmsprop, "momentum_buffer")});
    }
    cases.push_back({"square_sum", {{"n", count}}, {{"partial", (n + 8191) / 8192}, {"x", n}}});
  }
  cases.push_back({"optimizer_begin",
                   {{"n_partial", 3}, {"clip_norm", 1}, {"beta1", 0.9}, {"beta2", 0.999}},
                   {{"scalars", 8}, {"counter", 1, 0, 0, {41}}, {"total", 1, 1, 2}, {"partial", 3, 1, 2}}});
}

}  // namespace test
