// SPDX-License-Identifier: Apache-2.0
// The arguments of every kernel: one plain struct per family. The field lists below are their only
// description; they make the structs, the binder of a plan step, the schema Python sees, and the checks.
//
//   X(In, type, name)      operand that is read              X(InOpt, ...)   may be null
//   X(Out, type, name)     operand that is fully written     X(OutOpt, ...)  may be null: then not computed
//   X(InOut, type, name)   operand that is updated in place  X(InOutOpt, ...)
//   X(Dim, , name)         size or stride in elements, affine in the rows of the batch
//   X(Int, , name)         integer attribute
//   X(Real, , name)        real attribute
//
// Operand types: real (float, or double in the generic unit), index (int32), double, int64.
// Tensors are dense and row-major; (a, b) beside a field is its shape. Gradients start with d.
// Unless a list says otherwise, operands do not overlap; UnaryFwd, UnaryBwd, Dropout and Binary (with
// strides equal to the dense ones) may write over an input exactly.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/types.h"

namespace hotloop {

// Panel width of packed matrices, in elements: 16 floats are a cache line, two AVX2 vectors, one of AVX-512.
constexpr int64 kPanel = 16;
constexpr int kMaxDims = 4;
constexpr int64 kSquareSumRun = 8192;  // elements behind one partial sum of squares

// out (ceil(n/16), k, 16) = x (k, n) read at x[i*stride_k + j*stride_n]; columns past n are zero.
#define HOTLOOP_PackPanelsArgs(X) \
  X(Out, real, out)               \
  X(In, real, x)                  \
  X(Dim, , k)                     \
  X(Dim, , n)                     \
  X(Dim, , stride_k)              \
  X(Dim, , stride_n)

// z = alpha A (m, k) B (k, n) + beta out + bias (n);  out (m, n) = dropout(activation(z)). With beta = 0 what
// was in out is not read; NaN and infinities there are gone.
// A is read at a[i*a_stride_m + p*a_stride_k]; B at b[p*b_stride_k + j*b_stride_n], or in panels if b_packed.
// On a CPU b_stride_n is 1: what lies otherwise is packed. saved (m, n): what the activation's gradient reads
// (z for Input, activation(z) for Output and Sign). row_sum (m) = sum over k of A: the bias gradient, when A
// is the transposed output gradient. activation: index in unary.def, -1 for none. dropout: layer, -1 for
// none; element number i*n + j. dropout_row: see DropoutArgs. k = 0 gives z = beta out + bias. gate (m, n):
// with it, out = dropout(z) * f'(gate) instead, f being the activation, and saved is absent. residual (m, n)
// is added at the very end. out, saved, gate and residual have row stride out_stride >= n.
#define HOTLOOP_MatmulArgs(X) \
  X(Out, real, out)           \
  X(OutOpt, real, saved)      \
  X(OutOpt, real, row_sum)    \
  X(In, real, a)              \
  X(In, real, b)              \
  X(InOpt, real, bias)        \
  X(InOpt, real, gate)        \
  X(InOpt, real, residual)    \
  X(Dim, , m)                 \
  X(Dim, , n)                 \
  X(Dim, , k)                 \
  X(Dim, , a_stride_m)        \
  X(Dim, , a_stride_k)        \
  X(Dim, , b_stride_k)        \
  X(Dim, , b_stride_n)        \
  X(Dim, , out_stride)        \
  X(Dim, , dropout_row)       \
  X(Int, , b_packed)          \
  X(Int, , activation)        \
  X(Int, , dropout)           \
  X(Real, , alpha)            \
  X(Real, , beta)             \
  X(Real, , p0)               \
  X(Real, , p1)

// out (parts, m, n): out[p] = A^T B over rows [p depth, (p + 1) depth) of A (k, m) and B (k, n); row_sum
// (parts, m): the sums of A's columns over the same rows. Parts past k are zero; parts * depth >= k. The
// gradient of a weight with few elements over a long batch: each part is work of its own, and who adds them
// in order does what is left.
#define HOTLOOP_MatmulPartsArgs(X) \
  X(Out, real, out)                \
  X(OutOpt, real, row_sum)         \
  X(In, real, a)                   \
  X(In, real, b)                   \
  X(Dim, , parts)                  \
  X(Dim, , m)                      \
  X(Dim, , n)                      \
  X(Dim, , k)                      \
  X(Dim, , depth)

// y (n) = f(x (n); p0, p1)
#define HOTLOOP_UnaryFwdArgs(X) \
  X(Out, real, y)               \
  X(In, real, x)                \
  X(Dim, , n)                   \
  X(Real, , p0)                 \
  X(Real, , p1)

// dx (n) = dropout(dy (n)) * f'(saved (n)); saved is x or y as unary.def says; dropout: layer or -1.
#define HOTLOOP_UnaryBwdArgs(X) \
  X(Out, real, dx)              \
  X(In, real, dy)               \
  X(In, real, saved)            \
  X(Dim, , n)                   \
  X(Dim, , dropout_row)         \
  X(Int, , dropout)             \
  X(Real, , p0)                 \
  X(Real, , p1)

// out (d0, d1, d2, d3) dense = a op b; strides of 0 broadcast.
#define HOTLOOP_BinaryArgs(X) \
  X(Out, real, out)           \
  X(In, real, a)              \
  X(In, real, b)              \
  X(Dim, , d0)                \
  X(Dim, , d1)                \
  X(Dim, , d2)                \
  X(Dim, , d3)                \
  X(Dim, , a0)                \
  X(Dim, , a1)                \
  X(Dim, , a2)                \
  X(Dim, , a3)                \
  X(Dim, , b0)                \
  X(Dim, , b1)                \
  X(Dim, , b2)                \
  X(Dim, , b3)

// y (n) = x (n) kept and scaled, or 0. Element e is dropped if half-word e % 8 of Philox block e / 8 is
// below round(p * 65536); kept ones are divided by the exact keep rate. The gradient is the same call.
// A call on part of a batch begins at element first_row * dropout_row: dropout_row elements per row.
#define HOTLOOP_DropoutArgs(X) \
  X(Out, real, y)              \
  X(In, real, x)               \
  X(Dim, , n)                  \
  X(Dim, , dropout_row)        \
  X(Int, , dropout)

// out[i*o0 + j*o1 + k*o2 + l*o3] = x[i*x0 + j*x1 + k*x2 + l*x3] over (d0, d1, d2, d3): transposes,
// slices, concatenation, broadcasting (x strides of 0). Writes only those elements.
#define HOTLOOP_CopyArgs(X) \
  X(Out, real, out)         \
  X(In, real, x)            \
  X(Dim, , d0)              \
  X(Dim, , d1)              \
  X(Dim, , d2)              \
  X(Dim, , d3)              \
  X(Dim, , o0)              \
  X(Dim, , o1)              \
  X(Dim, , o2)              \
  X(Dim, , o3)              \
  X(Dim, , x0)              \
  X(Dim, , x1)              \
  X(Dim, , x2)              \
  X(Dim, , x3)

#define HOTLOOP_FillArgs(X) \
  X(Out, real, out)         \
  X(Dim, , n)               \
  X(Real, , value)

// x (n) limited to [lo, hi]; NaN stays NaN.
#define HOTLOOP_ClampArgs(X) \
  X(InOut, real, x)          \
  X(Dim, , n)                \
  X(Real, , lo)              \
  X(Real, , hi)

// out (outer, inner) = sum over reduce of x (outer, reduce, inner), divided by reduce if mean.
#define HOTLOOP_ReduceSumArgs(X) \
  X(Out, real, out)              \
  X(In, real, x)                 \
  X(Dim, , outer)                \
  X(Dim, , reduce)               \
  X(Dim, , inner)                \
  X(Int, , mean)

// out (outer, inner) = max over reduce of x (outer, reduce, inner); NaN wins; reduce = 0 is refused.
#define HOTLOOP_ReduceMaxFwdArgs(X) \
  X(Out, real, out)                 \
  X(In, real, x)                    \
  X(Dim, , outer)                   \
  X(Dim, , reduce)                  \
  X(Dim, , inner)

// dx = dout / (number of ties) where x == out, else 0 (as torch.amax).
#define HOTLOOP_ReduceMaxBwdArgs(X) \
  X(Out, real, dx)                  \
  X(In, real, dout)                 \
  X(In, real, x)                    \
  X(In, real, out)                  \
  X(Dim, , outer)                   \
  X(Dim, , reduce)                  \
  X(Dim, , inner)

// y (rows, cols) = softmax or log_softmax of x over cols.
#define HOTLOOP_SoftmaxFwdArgs(X) \
  X(Out, real, y)                 \
  X(In, real, x)                  \
  X(Dim, , rows)                  \
  X(Dim, , cols)

// softmax: dx = y * (dy - sum(dy*y));  log_softmax: dx = dy - exp(y) * sum(dy).
#define HOTLOOP_SoftmaxBwdArgs(X) \
  X(Out, real, dx)                \
  X(In, real, dy)                 \
  X(In, real, y)                  \
  X(Dim, , rows)                  \
  X(Dim, , cols)

// y = (x - mean) * rstd * weight + bias; rstd = 1/sqrt(var + eps), biased variance; mean, rstd (rows).
#define HOTLOOP_LayerNormFwdArgs(X) \
  X(Out, real, y)                   \
  X(OutOpt, real, mean)             \
  X(OutOpt, real, rstd)             \
  X(In, real, x)                    \
  X(InOpt, real, weight)            \
  X(InOpt, real, bias)              \
  X(Dim, , rows)                    \
  X(Dim, , cols)                    \
  X(Real, , eps)

// dx (rows, cols) = residual (rows, cols), the gradient by other ways, + the gradient through the norm.
#define HOTLOOP_LayerNormBwdArgs(X) \
  X(Out, real, dx)                  \
  X(In, real, dy)                   \
  X(In, real, x)                    \
  X(In, real, mean)                 \
  X(In, real, rstd)                 \
  X(InOpt, real, weight)            \
  X(InOpt, real, residual)          \
  X(Dim, , rows)                    \
  X(Dim, , cols)

// dweight (cols) = sum over rows of dy * (x - mean) * rstd;  dbias (cols) = sum over rows of dy
#define HOTLOOP_LayerNormParamBwdArgs(X) \
  X(OutOpt, real, dweight)               \
  X(OutOpt, real, dbias)                 \
  X(In, real, dy)                        \
  X(In, real, x)                         \
  X(In, real, mean)                      \
  X(In, real, rstd)                      \
  X(Dim, , rows)                         \
  X(Dim, , cols)

// dx as above, without residual. partial (ceil(rows / 64), 2, cols): of each 64 rows the sum of
// dy * (x - mean) * rstd, and the sum of dy; added up they are dweight and dbias.
#define HOTLOOP_LayerNormBothBwdArgs(X) \
  X(Out, real, dx)                      \
  X(Out, real, partial)                 \
  X(In, real, dy)                       \
  X(In, real, x)                        \
  X(In, real, mean)                     \
  X(In, real, rstd)                     \
  X(InOpt, real, weight)                \
  X(Dim, , rows)                        \
  X(Dim, , cols)

// y = x * rstd * weight; rstd = 1/sqrt(mean(x*x) + eps)
#define HOTLOOP_RmsNormFwdArgs(X) \
  X(Out, real, y)                 \
  X(OutOpt, real, rstd)           \
  X(In, real, x)                  \
  X(InOpt, real, weight)          \
  X(Dim, , rows)                  \
  X(Dim, , cols)                  \
  X(Real, , eps)

// residual: as above
#define HOTLOOP_RmsNormBwdArgs(X) \
  X(Out, real, dx)                \
  X(In, real, dy)                 \
  X(In, real, x)                  \
  X(In, real, rstd)               \
  X(InOpt, real, weight)          \
  X(InOpt, real, residual)        \
  X(Dim, , rows)                  \
  X(Dim, , cols)

#define HOTLOOP_RmsNormParamBwdArgs(X) \
  X(Out, real, dweight)                \
  X(In, real, dy)                      \
  X(In, real, x)                       \
  X(In, real, rstd)                    \
  X(Dim, , rows)                       \
  X(Dim, , cols)

// Statistics over the rows of x (rows, cols); mean, rstd (cols) are saved for the gradient.
// running = (1 - momentum) * running + momentum * batch, with the unbiased variance, as in torch.
#define HOTLOOP_BatchNormFwdArgs(X) \
  X(Out, real, y)                   \
  X(Out, real, mean)                \
  X(Out, real, rstd)                \
  X(InOutOpt, real, running_mean)   \
  X(InOutOpt, real, running_var)    \
  X(In, real, x)                    \
  X(InOpt, real, weight)            \
  X(InOpt, real, bias)              \
  X(Dim, , rows)                    \
  X(Dim, , cols)                    \
  X(Real, , eps)                    \
  X(Real, , momentum)

// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias
#define HOTLOOP_BatchNormEvalArgs(X) \
  X(Out, real, y)                    \
  X(In, real, x)                     \
  X(In, real, running_mean)          \
  X(In, real, running_var)           \
  X(InOpt, real, weight)             \
  X(InOpt, real, bias)               \
  X(Dim, , rows)                     \
  X(Dim, , cols)                     \
  X(Real, , eps)

#define HOTLOOP_BatchNormBwdArgs(X) \
  X(Out, real, dx)                  \
  X(OutOpt, real, dweight)          \
  X(OutOpt, real, dbias)            \
  X(In, real, dy)                   \
  X(In, real, x)                    \
  X(In, real, mean)                 \
  X(In, real, rstd)                 \
  X(InOpt, real, weight)            \
  X(Dim, , rows)                    \
  X(Dim, , cols)

// y (n, dim) = weight (vocab, dim)[ids (n)]; ids were checked at the border.
#define HOTLOOP_EmbeddingFwdArgs(X) \
  X(Out, real, y)                   \
  X(In, real, weight)               \
  X(In, index, ids)                 \
  X(Dim, , n)                       \
  X(Dim, , vocab)                   \
  X(Dim, , dim)

// dweight (vocab, dim) = sum of the dy (n, dim) of each id, in the order of n; 0 for absent ids.
#define HOTLOOP_EmbeddingBwdArgs(X) \
  X(Out, real, dweight)             \
  X(In, real, dy)                   \
  X(In, index, ids)                 \
  X(Dim, , n)                       \
  X(Dim, , vocab)                   \
  X(Dim, , dim)

// weight_i = sample_weight_i * class_weight[labels_i] (each 1 if absent); total = sum of weight_i;
// drow_i = weight_i / total, or 0 if total is 0: the gradient of the weighted mean loss.
#define HOTLOOP_RowWeightArgs(X) \
  X(Out, real, weight)           \
  X(Out, real, drow)             \
  X(Out, double, total)          \
  X(InOpt, real, sample_weight)  \
  X(InOpt, real, class_weight)   \
  X(InOpt, index, labels)        \
  X(Dim, , rows)

// Softmax cross-entropy of logits (rows, cols) against labels (rows) or probabilities probs (rows, cols).
// q = (1 - s) * target + s / cols, s = label_smoothing;  row_loss_i = sum_c q_c * (lse - logits_c);
// dlogits = drow_i * (softmax(logits) * sum(q) - q). One pass gives both; either output may be absent.
#define HOTLOOP_CrossEntropyArgs(X) \
  X(OutOpt, real, row_loss)         \
  X(OutOpt, real, dlogits)          \
  X(In, real, logits)               \
  X(InOpt, index, labels)           \
  X(InOpt, real, probs)             \
  X(InOpt, real, drow)              \
  X(Dim, , rows)                    \
  X(Dim, , cols)                    \
  X(Real, , label_smoothing)

// row_loss_i = mean over cols of l(pred, target);  dpred = drow_i / cols * l'(pred, target).
// pos_weight (cols) is for bce_with_logits; p0 is huber's delta.
#define HOTLOOP_LossArgs(X)  \
  X(OutOpt, real, row_loss)  \
  X(OutOpt, real, dpred)     \
  X(In, real, pred)          \
  X(In, real, target)        \
  X(InOpt, real, pos_weight) \
  X(InOpt, real, drow)       \
  X(Dim, , rows)             \
  X(Dim, , cols)             \
  X(Real, , p0)

// loss (1) = sum(w*l)/sum(w) of this batch (0 if sum(w) is 0); totals (2) += [sum(w*l), sum(w)]
#define HOTLOOP_LossStatsArgs(X) \
  X(Out, double, loss)           \
  X(InOut, double, totals)       \
  X(In, real, row_loss)          \
  X(In, real, weight)            \
  X(Dim, , rows)

// totals (2) += [rows whose first largest logit is the label (or the first largest probability), rows];
// a row with a NaN logit is wrong.
#define HOTLOOP_AccuracyArgs(X) \
  X(InOut, double, totals)      \
  X(In, real, logits)           \
  X(InOpt, index, labels)       \
  X(InOpt, real, probs)         \
  X(Dim, , rows)                \
  X(Dim, , cols)

// totals (2) += [rows whose label is among the k largest logits, rows]. Equal logits rank by their index, the
// lower one first, as in accuracy; a NaN is larger than any number, and a label whose logit is NaN is wrong.
#define HOTLOOP_TopKAccuracyArgs(X) \
  X(InOut, double, totals)          \
  X(In, real, logits)               \
  X(In, index, labels)              \
  X(Dim, , rows)                    \
  X(Dim, , cols)                    \
  X(Int, , top_k)

// totals (2) += [elements where (logit > 0) == (target > 0.5), elements]; a NaN logit is wrong.
#define HOTLOOP_BinaryAccuracyArgs(X) \
  X(InOut, double, totals)            \
  X(In, real, logits)                 \
  X(In, real, target)                 \
  X(Dim, , rows)                      \
  X(Dim, , cols)

// totals (1 + 4*cols) += [rows, then per column: sum (p-t)^2, sum |p-t|, sum t, sum t^2]
#define HOTLOOP_RegressionStatsArgs(X) \
  X(InOut, double, totals)             \
  X(In, real, pred)                    \
  X(In, real, target)                  \
  X(Dim, , rows)                       \
  X(Dim, , cols)

// Of the batches k that share an update, the gradient is sum(total_k grad_k) / sum(total_k), total being a
// batch's sum of row weights. Sums are kept in units of the first total that is not 0, so that batches of
// equal weight are added as they are, and no scale of the weights overflows. tally (2) = [sum of total,
// unit], begun anew in the first batch; scalars (4) = [keep, weight, last, scale]: whether anything was
// summed before, total / unit, whether this is the last batch, unit / sum of total.
#define HOTLOOP_AccumulateBeginArgs(X) \
  X(Out, double, scalars)              \
  X(InOut, double, tally)              \
  X(In, double, total)

// s = weight * grad + (sum if keep);  sum (n) = s, but in the last batch grad (n) = scale * s
#define HOTLOOP_AccumulateArgs(X) \
  X(InOut, real, sum)             \
  X(InOut, real, grad)            \
  X(In, double, scalars)          \
  X(Dim, , n)

// partial (ceil(n / 8192)): sum of squares of each run of 8192 elements, in double
#define HOTLOOP_SquareSumArgs(X) \
  X(Out, double, partial)        \
  X(In, real, x)                 \
  X(Dim, , n)

// What all parameters of one group share in a step; everything in double.
// scalars (8) = [skip, lr, weight_decay, grad_scale, 1 - beta1^t, sqrt(1 - beta2^t), t, grad_norm].
// skip = 1 if total (sum of row weights) is 0; else counter (n_counter, all equal: one for each parameter of
// the segment) += 1 and t = counter. lr and weight_decay come from the step's parameters. grad_scale = min(1,
// clip_norm / (norm + 1e-6)), norm = sqrt(sum of partial), as torch.nn.utils.clip_grad_norm_; 1 if clip_norm
// is 0. group: row of the step's parameters.
#define HOTLOOP_OptimizerBeginArgs(X) \
  X(Out, double, scalars)             \
  X(InOut, int64, counter)            \
  X(InOpt, double, total)             \
  X(InOpt, double, partial)           \
  X(Dim, , n_counter)                 \
  X(Dim, , n_partial)                 \
  X(Int, , group)                     \
  X(Real, , clip_norm)                \
  X(Real, , beta1)                    \
  X(Real, , beta2)

// torch.optim.Adam, or AdamW if decoupled, over n flat elements; does nothing if scalars say skip.
#define HOTLOOP_AdamArgs(X)  \
  X(InOut, real, param)      \
  X(InOut, real, exp_avg)    \
  X(InOut, real, exp_avg_sq) \
  X(In, real, grad)          \
  X(In, double, scalars)     \
  X(Dim, , n)                \
  X(Int, , decoupled)        \
  X(Real, , beta1)           \
  X(Real, , beta2)           \
  X(Real, , eps)

// torch.optim.SGD (dampening 0); momentum_buffer is absent if momentum is 0.
#define HOTLOOP_SgdArgs(X)           \
  X(InOut, real, param)              \
  X(InOutOpt, real, momentum_buffer) \
  X(In, real, grad)                  \
  X(In, double, scalars)             \
  X(Dim, , n)                        \
  X(Int, , nesterov)                 \
  X(Real, , momentum)

// torch.optim.RMSprop (not centred); momentum_buffer is absent if momentum is 0.
#define HOTLOOP_RmspropArgs(X)       \
  X(InOut, real, param)              \
  X(InOut, real, square_avg)         \
  X(InOutOpt, real, momentum_buffer) \
  X(In, real, grad)                  \
  X(In, double, scalars)             \
  X(Dim, , n)                        \
  X(Real, , alpha)                   \
  X(Real, , eps)                     \
  X(Real, , momentum)

// Of the exponential moving average: counter += 1, scalars (1) = [weight], which is 1 in the first update and
// 1 - decay from then on, as torch.optim.swa_utils.AveragedModel; if total is 0, no update: [0].
#define HOTLOOP_EmaBeginArgs(X) \
  X(Out, double, scalars)       \
  X(InOut, int64, counter)      \
  X(InOpt, double, total)       \
  X(Real, , decay)

// average (n) += weight * (param - average)
#define HOTLOOP_EmaArgs(X) \
  X(InOut, real, average)  \
  X(In, real, param)       \
  X(In, double, scalars)   \
  X(Dim, , n)

#define HOTLOOP_FIELD_In(type, name) const type* name = nullptr;
#define HOTLOOP_FIELD_InOpt(type, name) const type* name = nullptr;
#define HOTLOOP_FIELD_Out(type, name) type* name = nullptr;
#define HOTLOOP_FIELD_OutOpt(type, name) type* name = nullptr;
#define HOTLOOP_FIELD_InOut(type, name) type* name = nullptr;
#define HOTLOOP_FIELD_InOutOpt(type, name) type* name = nullptr;
#define HOTLOOP_FIELD_Dim(type, name) int64 name = 0;
#define HOTLOOP_FIELD_Int(type, name) int64 name = 0;
#define HOTLOOP_FIELD_Real(type, name) double name = 0.0;
#define HOTLOOP_FIELD(kind, type, name) HOTLOOP_FIELD_##kind(type, name)
#define HOTLOOP_ARGS(Args)        \
  template <class real>           \
  struct Args {                   \
    HOTLOOP_##Args(HOTLOOP_FIELD) \
  };

HOTLOOP_ARGS(PackPanelsArgs)
HOTLOOP_ARGS(MatmulArgs)
HOTLOOP_ARGS(MatmulPartsArgs)
HOTLOOP_ARGS(UnaryFwdArgs)
HOTLOOP_ARGS(UnaryBwdArgs)
HOTLOOP_ARGS(BinaryArgs)
HOTLOOP_ARGS(DropoutArgs)
HOTLOOP_ARGS(CopyArgs)
HOTLOOP_ARGS(FillArgs)
HOTLOOP_ARGS(ClampArgs)
HOTLOOP_ARGS(ReduceSumArgs)
HOTLOOP_ARGS(ReduceMaxFwdArgs)
HOTLOOP_ARGS(ReduceMaxBwdArgs)
HOTLOOP_ARGS(SoftmaxFwdArgs)
HOTLOOP_ARGS(SoftmaxBwdArgs)
HOTLOOP_ARGS(LayerNormFwdArgs)
HOTLOOP_ARGS(LayerNormBwdArgs)
HOTLOOP_ARGS(LayerNormParamBwdArgs)
HOTLOOP_ARGS(LayerNormBothBwdArgs)
HOTLOOP_ARGS(RmsNormFwdArgs)
HOTLOOP_ARGS(RmsNormBwdArgs)
HOTLOOP_ARGS(RmsNormParamBwdArgs)
HOTLOOP_ARGS(BatchNormFwdArgs)
HOTLOOP_ARGS(BatchNormEvalArgs)
HOTLOOP_ARGS(BatchNormBwdArgs)
HOTLOOP_ARGS(EmbeddingFwdArgs)
HOTLOOP_ARGS(EmbeddingBwdArgs)
HOTLOOP_ARGS(RowWeightArgs)
HOTLOOP_ARGS(CrossEntropyArgs)
HOTLOOP_ARGS(LossArgs)
HOTLOOP_ARGS(LossStatsArgs)
HOTLOOP_ARGS(AccuracyArgs)
HOTLOOP_ARGS(TopKAccuracyArgs)
HOTLOOP_ARGS(BinaryAccuracyArgs)
HOTLOOP_ARGS(RegressionStatsArgs)
HOTLOOP_ARGS(AccumulateBeginArgs)
HOTLOOP_ARGS(AccumulateArgs)
HOTLOOP_ARGS(SquareSumArgs)
HOTLOOP_ARGS(OptimizerBeginArgs)
HOTLOOP_ARGS(AdamArgs)
HOTLOOP_ARGS(SgdArgs)
HOTLOOP_ARGS(RmspropArgs)
HOTLOOP_ARGS(EmaBeginArgs)
HOTLOOP_ARGS(EmaArgs)

}  // namespace hotloop
