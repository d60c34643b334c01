// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of plain arrays or tensors in one call: the labels are checked and converted on the way in,
// and a mean comes out. For small batches everything around the kernel would take longer than the kernel.
#include <algorithm>
#include <cstring>

#include "bindings/operand.h"
#include "kernels/isa.h"
#include "runtime/team_calls.h"

namespace hotloop {
namespace {

// As launch.py: about 40 us of one thread.
constexpr int64 kAloneElements = 65'000;

template <class label>
bool convert(const Operand& labels, int64 classes, std::vector<index>& out) {
  const auto* from = static_cast<const label*>(labels.data);
  label least = 0, most = 0;
  for (int64 i = 0; i < labels.size; ++i) {
    least = std::min(least, from[i]);
    most = std::max(most, from[i]);
    out[static_cast<std::size_t>(i)] = static_cast<index>(from[i]);
  }
  return least >= 0 && most < classes;
}

void run(const KernelFn& fn, const void* args, ThreadTeam* team) {
  const StepContext ctx{};
  const int64 chunks = team == nullptr ? 0 : fn.chunks(args);
  TeamCalls::here().run(
      team, &fn, chunks, chunks, [&](int64 chunk) { fn.run(args, ctx, chunk); },
      [&] { fn.run_all(args, ctx); });
}

// The mean loss; with `dloss` (not null) instead the gradient of the logits, times dloss, into grad; both if
// grad is there without it.
template <class real>
double cross_entropy(const Operand& logits, const std::vector<index>& labels, double smoothing,
                     const double* dloss, void* grad, ThreadTeam* team) {
  const int64 rows = logits.shape[0];
  const auto count = static_cast<std::size_t>(rows);
  const bool wants_loss = dloss == nullptr;
  std::vector<real> row_loss(wants_loss ? count : 0);
  const double each = (wants_loss ? 1.0 : *dloss) / static_cast<double>(rows);
  const std::vector<real> share(grad != nullptr ? count : 0, static_cast<real>(each));
  CrossEntropyArgs<real> args;
  args.row_loss = wants_loss ? row_loss.data() : nullptr;
  args.dlogits = static_cast<real*>(grad);
  args.logits = static_cast<const real*>(logits.data);
  args.labels = labels.data();
  args.drow = grad != nullptr ? share.data() : nullptr;
  args.rows = rows;
  args.cols = logits.shape[1];
  args.label_smoothing = smoothing;
  const KernelFn& fn = kernel_in_use(Kernel::k_cross_entropy, sizeof(real) == sizeof(double));
  run(fn, &args, logits.size < kAloneElements ? nullptr : team);
  double sum = 0.0;
  for (const real loss : row_loss) sum += static_cast<double>(loss);
  return sum / static_cast<double>(rows);
}

// logits (rows, classes), labels (rows,) of int32 or int64; dloss: None, or a number. The result, or None if
// anything is not plain or a label out of range: then nothing has been written.
py::object plain_cross_entropy(py::handle logits_value, py::handle labels_value, double smoothing,
                               const py::object& dloss_value, py::handle grad_value, ThreadTeam* team) {
  const std::optional<Operand> logits = read_operand(logits_value), labels = read_operand(labels_value);
  if (!logits || !labels || !logits->is_real() || logits->ndim != 2 || logits->size == 0 ||
      !logits->is_row_major())
    return py::none();
  if (labels->is_real() || labels->ndim != 1 || labels->size != logits->shape[0] || !labels->is_row_major())
    return py::none();
  void* grad = nullptr;
  if (!grad_value.is_none()) {
    const std::optional<Operand> out = read_operand(grad_value);
    if (!out || !out->writeable || !out->same_layout(*logits)) return py::none();
    grad = out->data;
  }
  const bool has_dloss = !dloss_value.is_none();
  const double dloss = has_dloss ? dloss_value.cast<double>() : 1.0;
  const int64 classes = logits->shape[1];
  std::vector<index> numbers(static_cast<std::size_t>(labels->size));
  const bool wide = labels->element == Element::kInt64;
  if (!(wide ? convert<std::int64_t> : convert<std::int32_t>)(*labels, classes, numbers)) return py::none();
  double loss = 0.0;
  {
    const Operand x = *logits;
    const int64 shape[2] = {x.shape[0], x.shape[1]};
    Operand held = x;
    held.shape = shape;                    // the owner's own may go while others run
    const py::gil_scoped_release release;  // the caller holds the arrays
    loss = (x.is_double() ? cross_entropy<double> : cross_entropy<float>)(held, numbers, smoothing,
                                                                          has_dloss ? &dloss : nullptr, grad,
                                                                          team);
  }
  return py::float_(loss);
}

}  // namespace

void register_eager_loss(py::module_& m) {
  m.def(
      "plain_cross_entropy", &plain_cross_entropy, py::arg("logits"), py::arg("labels"), py::arg("smoothing"),
      py::arg("dloss"), py::arg("grad"), py::arg("team") = nullptr,
      "Mean cross-entropy of plain arrays, or its gradient; None, and nothing done, if they are not plain.");
}

}  // namespace hotloop
