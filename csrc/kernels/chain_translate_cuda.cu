// SPDX-License-Identifier: Apache-2.0
// From steps of a plan to the chain kernel's instructions. What the kernel does not do is refused here: the
// steps then run one by one.
#include <initializer_list>

#include "kernels/args.h"
#include "kernels/chain_plan.h"

namespace hotloop::cuda {
namespace {

enum KernelId : int {
#define HOTLOOP_KERNEL(name, Args) id_##name,
#include "kernels/kernels.def"
#undef HOTLOOP_KERNEL
};

// The numbers of an argument struct's fields, which ChainStep counts by.
#define HOTLOOP_FIELD_NUMBER(kind, type, name) name,
#define HOTLOOP_FIELD_NUMBERS(Args)                      \
  struct Args##Fields {                                  \
    enum : int { HOTLOOP_##Args(HOTLOOP_FIELD_NUMBER) }; \
  };
HOTLOOP_FIELD_NUMBERS(MatmulArgs)
HOTLOOP_FIELD_NUMBERS(UnaryFwdArgs)
HOTLOOP_FIELD_NUMBERS(UnaryBwdArgs)
HOTLOOP_FIELD_NUMBERS(DropoutArgs)
HOTLOOP_FIELD_NUMBERS(BinaryArgs)
HOTLOOP_FIELD_NUMBERS(CrossEntropyArgs)
HOTLOOP_FIELD_NUMBERS(LossArgs)
HOTLOOP_FIELD_NUMBERS(LayerNormFwdArgs)
HOTLOOP_FIELD_NUMBERS(LayerNormBwdArgs)
HOTLOOP_FIELD_NUMBERS(RmsNormFwdArgs)
HOTLOOP_FIELD_NUMBERS(RmsNormBwdArgs)
#undef HOTLOOP_FIELD_NUMBERS
#undef HOTLOOP_FIELD_NUMBER

constexpr int64 kLongestStride = 1 << 20;  // what an int times the rows of a tile holds

// One step on its way to an instruction; every check that fails makes `good` false.
class Translation {
 public:
  Translation(const ChainStep& step, int64 rows, int64 m, ChainInstruction& to)
      : s(to), step_(step), rows_(rows), m_(m) {}

  ChainInstruction& s;
  bool good = true;
  bool out_unread = false, saved_unread = false;

  void need(bool what) { good = good && what; }
  bool unread(int field) const { return (step_.unread >> field & 1u) != 0; }
  // A field that counts rows: all of a chain go through as many.
  void counts(int field, int64 value) { need(value == m_ && step_.per_row[field] * rows_ == value); }
  void fixed(int field) { need(step_.per_row[field] == 0); }

  // A tensor of m rows, `stride` elements apart; null stays absent.
  ChainOperand moving(int field, const float* at, int64 stride) {
    if (at == nullptr) return {};
    need(stride > 0 && stride <= kLongestStride && step_.per_row[field] * rows_ == stride * m_);
    return {const_cast<float*>(at), static_cast<int>(good ? stride : 0), -1};
  }
  // A number of each row.
  template <class T>
  T* each_row(int field, T* at) {
    need(at == nullptr || step_.per_row[field] * rows_ == m_);
    return at;
  }
  const float* shared(int field, const float* at) {
    need(at == nullptr || step_.per_row[field] == 0);
    return at;
  }
  void columns(int64 n) {
    need(n >= 1 && n <= kChainWidth);
    s.columns = static_cast<int>(good ? n : 1);
  }
  // The columns of n dense elements.
  void sized(int64 n) {
    need(n % m_ == 0);
    columns(n / m_);
  }
  void elements(int field, int64 n) {
    need(step_.per_row[field] * rows_ == n);
    sized(n);
  }

 private:
  const ChainStep& step_;
  int64 rows_, m_;
};

template <class Args>
const Args& args_of(const ChainStep& step) {
  return *static_cast<const Args*>(step.args);
}

// B as it is stored: rows side by side along k or along n. Of a single row or column any stride will do.
void matrix(Translation& t, const MatmulArgs<float>& a) {
  ChainMatrix& b = t.s.b;
  const int n = static_cast<int>(a.n), k = static_cast<int>(a.k);
  b.at = a.b;
  const auto stored = [&](ChainForm form, int rows, int columns, int64 stride) {
    t.need(rows == 1 || (stride > 0 && stride <= kLongestStride));
    b.form = form;
    b.rows = rows;
    b.columns = columns;
    b.stride = rows == 1 || !t.good ? columns : static_cast<int>(stride);
  };
  if (a.b_packed != 0) return stored(ChainForm::kPanels, k, n, kPanel);
  if (a.b_stride_k == 1 && (n == 1 || a.b_stride_n >= k))
    return stored(ChainForm::kByColumns, n, k, a.b_stride_n);
  if (a.b_stride_n == 1 && (k == 1 || a.b_stride_k >= n))
    return stored(ChainForm::kByRows, k, n, a.b_stride_k);
  if (k == 1) return stored(ChainForm::kByColumns, n, 1, a.b_stride_n);
  t.need(n == 1);
  stored(ChainForm::kByRows, k, 1, a.b_stride_k);
}

void product(Translation& t, const MatmulArgs<float>& a) {
  using F = MatmulArgsFields;
  t.s.kind = ChainKind::kProduct;
  t.counts(F::m, a.m);
  for (const int field : {F::n, F::k, F::a_stride_m, F::out_stride}) t.fixed(field);
  t.need(a.k >= 1 && a.k <= kChainDepth && (a.a_stride_k == 1 || a.k == 1));
  t.need(a.row_sum == nullptr && a.beta == 0.0 && a.out_stride >= a.n && a.a_stride_m >= a.k);
  t.columns(a.n);
  if (!t.good) return;
  t.s.depth = static_cast<int>(a.k);
  t.s.in = t.moving(F::a, a.a, a.a_stride_m);
  t.s.other = t.moving(F::gate, a.gate, a.out_stride);
  t.s.residual = t.moving(F::residual, a.residual, a.out_stride);
  t.s.out = t.moving(F::out, a.out, a.out_stride);
  t.s.saved = t.moving(F::saved, a.saved, a.out_stride);
  t.s.vector = t.shared(F::bias, a.bias);
  t.shared(F::b, a.b);
  t.s.function = static_cast<int>(a.activation);
  t.s.dropout = static_cast<int>(a.dropout);
  t.s.p0 = static_cast<float>(a.p0);
  t.s.p1 = static_cast<float>(a.p1);
  t.s.alpha = static_cast<float>(a.alpha);
  t.out_unread = t.unread(F::out);
  t.saved_unread = t.unread(F::saved);
  matrix(t, a);
}

void unary_fwd(Translation& t, const UnaryFwdArgs<float>& a, int function) {
  using F = UnaryFwdArgsFields;
  t.elements(F::n, a.n);
  t.s.in = t.moving(F::x, a.x, t.s.columns);
  t.s.out = t.moving(F::y, a.y, t.s.columns);
  t.s.function = function;
  t.s.p0 = static_cast<float>(a.p0);
  t.s.p1 = static_cast<float>(a.p1);
  t.out_unread = t.unread(F::y);
}

void unary_bwd(Translation& t, const UnaryBwdArgs<float>& a, int function) {
  using F = UnaryBwdArgsFields;
  t.elements(F::n, a.n);
  t.s.in = t.moving(F::dy, a.dy, t.s.columns);
  t.s.other = t.moving(F::saved, a.saved, t.s.columns);
  t.s.out = t.moving(F::dx, a.dx, t.s.columns);
  t.s.function = function;
  t.s.dropout = static_cast<int>(a.dropout);
  t.s.p0 = static_cast<float>(a.p0);
  t.s.p1 = static_cast<float>(a.p1);
  t.out_unread = t.unread(F::dx);
}

void dropout(Translation& t, const DropoutArgs<float>& a) {
  using F = DropoutArgsFields;
  t.elements(F::n, a.n);
  t.s.in = t.moving(F::x, a.x, t.s.columns);
  t.s.out = t.moving(F::y, a.y, t.s.columns);
  t.s.dropout = static_cast<int>(a.dropout);
  t.out_unread = t.unread(F::y);
}

// Sums of two tensors of one shape; broadcasting is not for a chain.
void sum(Translation& t, const BinaryArgs<float>& a) {
  using F = BinaryArgsFields;
  const int64 d[4] = {a.d0, a.d1, a.d2, a.d3};
  const int64 strides[2][4] = {{a.a0, a.a1, a.a2, a.a3}, {a.b0, a.b1, a.b2, a.b3}};
  int64 n = 1;
  for (int i = 3; i >= 0; n *= d[i--]) t.need(d[i] == 1 || (strides[0][i] == n && strides[1][i] == n));
  t.sized(n);
  t.s.in = t.moving(F::a, a.a, t.s.columns);
  t.s.residual = t.moving(F::b, a.b, t.s.columns);
  t.s.out = t.moving(F::out, a.out, t.s.columns);
  t.out_unread = t.unread(F::out);
}

void cross_entropy(Translation& t, const CrossEntropyArgs<float>& a) {
  using F = CrossEntropyArgsFields;
  t.s.kind = ChainKind::kCrossEntropy;
  t.counts(F::rows, a.rows);
  t.columns(a.cols);
  t.s.in = t.moving(F::logits, a.logits, a.cols);
  t.s.other = t.moving(F::probs, a.probs, a.cols);
  t.s.out = t.moving(F::dlogits, a.dlogits, a.cols);
  t.s.labels = t.each_row(F::labels, a.labels);
  t.s.drow = t.each_row(F::drow, a.drow);
  t.s.row_loss = t.each_row(F::row_loss, a.row_loss);
  t.s.p0 = static_cast<float>(a.label_smoothing);
  t.out_unread = t.unread(F::dlogits);
}

void loss(Translation& t, const LossArgs<float>& a, int function) {
  using F = LossArgsFields;
  t.s.kind = ChainKind::kLoss;
  t.counts(F::rows, a.rows);
  t.columns(a.cols);
  t.s.in = t.moving(F::pred, a.pred, a.cols);
  t.s.other = t.moving(F::target, a.target, a.cols);
  t.s.out = t.moving(F::dpred, a.dpred, a.cols);
  t.s.vector = t.shared(F::pos_weight, a.pos_weight);
  t.s.drow = t.each_row(F::drow, a.drow);
  t.s.row_loss = t.each_row(F::row_loss, a.row_loss);
  t.s.function = function;
  t.s.p0 = static_cast<float>(a.p0);
  t.out_unread = t.unread(F::dpred);
}

// What both norms have, forwards and backwards.
template <class F, class Args>
void norm(Translation& t, const Args& a, bool centred) {
  t.s.kind = ChainKind::kNorm;
  t.counts(F::rows, a.rows);
  t.columns(a.cols);
  t.s.in = t.moving(F::x, a.x, a.cols);
  t.s.out = t.moving(F::y, a.y, a.cols);
  t.s.vector = t.shared(F::weight, a.weight);
  t.s.row_loss = t.each_row(F::rstd, a.rstd);
  t.s.centred = centred ? 1 : 0;
  t.s.p0 = static_cast<float>(a.eps);
  t.out_unread = t.unread(F::y);
}

template <class F, class Args>
void norm_grad(Translation& t, const Args& a, bool centred) {
  t.s.kind = ChainKind::kNormGrad;
  t.counts(F::rows, a.rows);
  t.columns(a.cols);
  t.s.in = t.moving(F::dy, a.dy, a.cols);
  t.s.other = t.moving(F::x, a.x, a.cols);
  t.s.residual = t.moving(F::residual, a.residual, a.cols);
  t.s.out = t.moving(F::dx, a.dx, a.cols);
  t.s.vector = t.shared(F::weight, a.weight);
  t.s.row_loss = t.each_row(F::rstd, const_cast<float*>(a.rstd));
  t.s.centred = centred ? 1 : 0;
  t.out_unread = t.unread(F::dx);
}

void layer_norm(Translation& t, const LayerNormFwdArgs<float>& a) {
  using F = LayerNormFwdArgsFields;
  norm<F>(t, a, true);
  t.s.mean = t.each_row(F::mean, a.mean);
  t.s.shift = t.shared(F::bias, a.bias);
}

void layer_norm_grad(Translation& t, const LayerNormBwdArgs<float>& a) {
  using F = LayerNormBwdArgsFields;
  norm_grad<F>(t, a, true);
  t.s.mean = t.each_row(F::mean, const_cast<float*>(a.mean));
}

void translate(Translation& t, const ChainStep& step) {
  enum Unary : int {
#define HOTLOOP_UNARY(name, Functor, reads) k_##name,
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
  };
  enum Loss : int {
#define HOTLOOP_LOSS(name, Functor) k_##name,
#include "kernels/loss.def"
#undef HOTLOOP_LOSS
  };
  switch (step.kernel) {
    case id_matmul:
      return product(t, args_of<MatmulArgs<float>>(step));
#define HOTLOOP_UNARY(name, Functor, reads)                                   \
  case id_##name##_fwd:                                                       \
    return unary_fwd(t, args_of<UnaryFwdArgs<float>>(step), Unary::k_##name); \
  case id_##name##_bwd:                                                       \
    return unary_bwd(t, args_of<UnaryBwdArgs<float>>(step), Unary::k_##name);
#include "kernels/unary.def"
#undef HOTLOOP_UNARY
#define HOTLOOP_LOSS(name, Functor) \
  case id_##name:                   \
    return loss(t, args_of<LossArgs<float>>(step), Loss::k_##name);
#include "kernels/loss.def"
#undef HOTLOOP_LOSS
    case id_dropout:
      return dropout(t, args_of<DropoutArgs<float>>(step));
    case id_add:
      return sum(t, args_of<BinaryArgs<float>>(step));
    case id_cross_entropy:
      return cross_entropy(t, args_of<CrossEntropyArgs<float>>(step));
    case id_layer_norm_fwd:
      return layer_norm(t, args_of<LayerNormFwdArgs<float>>(step));
    case id_layer_norm_bwd:
      return layer_norm_grad(t, args_of<LayerNormBwdArgs<float>>(step));
    case id_rms_norm_fwd:
      return norm<RmsNormFwdArgsFields>(t, args_of<RmsNormFwdArgs<float>>(step), false);
    case id_rms_norm_bwd:
      return norm_grad<RmsNormBwdArgsFields>(t, args_of<RmsNormBwdArgs<float>>(step), false);
    default:
      t.need(false);
  }
}

}  // namespace

bool translate_chain(const ChainStep* steps, std::size_t n, int64 rows, ChainList& found) {
  if (n < 2 || n > kChainSteps || rows < 1) return false;  // a single step has a kernel of its own
  int64 m = 0;  // rows of the tensors: those of the batch, or several for each
  for (std::size_t i = 0; i < n && m == 0; ++i)
    if (steps[i].kernel == id_matmul) m = args_of<MatmulArgs<float>>(steps[i]).m;
  if (m < 1) return false;
  for (std::size_t i = 0; i < n; ++i) {
    Translation t(steps[i], rows, m, found.program.steps[i]);
    translate(t, steps[i]);
    if (!t.good) return false;
    found.out_unread[i] = t.out_unread;
    found.saved_unread[i] = t.saved_unread;
  }
  found.program.n = static_cast<int>(n);
  found.program.rows = m;
  return true;
}

}  // namespace hotloop::cuda
