// SPDX-License-Identifier: Apache-2.0
// Gradients of several batches joined to one: a pass after each batch that reads and writes each element
// once. In the first batch it overwrites what the last update left, in the last it hands the mean to the
// update.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// scalars of the batch: see args.h

template <class real>
int64 accumulate_begin_chunks(const AccumulateBeginArgs<real>&) {
  return 1;
}

template <class real>
void accumulate_begin_run(const AccumulateBeginArgs<real>& a, const StepContext& ctx, int64) {
  const double before = ctx.first ? 0.0 : a.tally[0];
  const double total = *a.total;
  const double unit = before == 0.0 ? total : a.tally[1];
  const double sum = before + total;
  a.tally[0] = sum;
  a.tally[1] = unit;
  a.scalars[0] = before == 0.0 ? 0.0 : 1.0;
  a.scalars[1] = unit == 0.0 ? 0.0 : total / unit;
  a.scalars[2] = ctx.last ? 1.0 : 0.0;
  a.scalars[3] = sum == 0.0 ? 0.0 : unit / sum;
}

// sum, grad (n)

template <class real>
int64 accumulate_chunks(const AccumulateArgs<real>& a) {
  return ceil_div(a.n, even_chunk(a.n));
}

template <class real>
void accumulate_run(const AccumulateArgs<real>& a, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  const bool keep = a.scalars[0] != 0.0, last = a.scalars[2] != 0.0;
  if (last && !keep) return;  // the mean of one gradient is that gradient
  const V weight(static_cast<real>(a.scalars[1]));
  const V scale(last ? static_cast<real>(a.scalars[3]) : real(1));
  real* const out = last ? a.grad : a.sum;
  const Range range = chunk_range(chunk, even_chunk(a.n), a.n);
  for_lanes<real>(range.begin, range.end, [&](int64 i, int64 n) HOTLOOP_BODY {
    const V grad = load(a.grad + i, n);
    const V s = keep ? fma(weight, grad, load(a.sum + i, n)) : weight * grad;
    store(scale * s, out + i, n);
  });
}

HOTLOOP_INSTANTIATE(accumulate_begin, AccumulateBeginArgs)
HOTLOOP_INSTANTIATE(accumulate, AccumulateArgs)

}  // namespace hotloop::HOTLOOP_ISA
