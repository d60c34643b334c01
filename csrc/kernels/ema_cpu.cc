// SPDX-License-Identifier: Apache-2.0
// The exponential moving average of the parameters: a pass of its own after the optimiser's, so that it
// covers frozen parameters too and the optimisers need not know of it.
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

// scalars (1) = [weight of the parameters]

template <class real>
int64 ema_begin_chunks(const EmaBeginArgs<real>&) {
  return 1;
}

template <class real>
void ema_begin_run(const EmaBeginArgs<real>& a, const StepContext&, int64) {
  const bool skip = a.total != nullptr && *a.total == 0.0;
  if (!skip) *a.counter += 1;
  a.scalars[0] = skip ? 0.0 : *a.counter == 1 ? 1.0 : 1.0 - a.decay;
}

// average, param (n)

template <class real>
int64 ema_chunks(const EmaArgs<real>& a) {
  return ceil_div(a.n, even_chunk(a.n));
}

template <class real>
void ema_run(const EmaArgs<real>& a, const StepContext&, int64 chunk) {
  using V = Vec<real>;
  if (a.scalars[0] == 0.0) return;
  const V weight(static_cast<real>(a.scalars[0]));
  const bool copies = a.scalars[0] == 1.0;  // average + (param - average) would round
  const Range range = chunk_range(chunk, even_chunk(a.n), a.n);
  for_lanes<real>(range.begin, range.end, [&](int64 i, int64 n) HOTLOOP_BODY {
    const V param = load(a.param + i, n), average = load(a.average + i, n);
    store(copies ? param : fma(weight, param - average, average), a.average + i, n);
  });
}

HOTLOOP_INSTANTIATE(ema_begin, EmaBeginArgs)
HOTLOOP_INSTANTIATE(ema, EmaArgs)

}  // namespace hotloop::HOTLOOP_ISA
