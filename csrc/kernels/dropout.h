// SPDX-License-Identifier: Apache-2.0
// Dropout of a run of elements, shared by the dropout kernel, the matmul epilogue and the gradients of
// activations. The mask is a function of (seed, run, layer, step, element): made again, never stored.
#pragma once

#include "cpu/philox_vec.h"
#include "kernels/lanes.h"

namespace hotloop::HOTLOOP_ISA {

template <class real>
struct DropoutMask {
  PhiloxKey key{};
  std::uint64_t step = 0;
  int64 first = 0;    // element of the batch that this call's element 0 is
  int threshold = 0;  // of 65536; 0: the identity
  real scale = 1;     // 1 / keep rate

  // row: elements of a row of the batch
  DropoutMask(const StepContext& ctx, int64 layer, int64 row) {
    if (layer < 0) return;
    threshold = static_cast<int>(ctx.dropout[layer] * 65536.0 + 0.5);
    if (threshold == 0) return;
    key = stream_key(ctx.seed, ctx.run, static_cast<std::uint32_t>(layer), Stream::kDropout);
    step = ctx.step;
    first = ctx.first_row * row;
    if (threshold < 65536) scale = static_cast<real>(65536.0 / (65536.0 - threshold));
  }

  bool identity() const { return threshold == 0; }
};

// A bit for each of so many elements from `begin` on, set where it is kept. The bits of a run are made before
// they are used: in a loop of their own, whose rounds wait for each other, four sets of blocks take turns.
constexpr int64 kKeptRun = 512;

// Between two runs no input is read, and processors do not look that far ahead: fetches what the next but one
// wants.
template <class real>
HOTLOOP_INLINE void fetch_run(const real* p) {
  __builtin_prefetch(p + 2 * kKeptRun);
}

template <class real>
class KeptBits {
 public:
  KeptBits(const DropoutMask<real>& mask, int64 begin, int64 n) : scale_(mask.scale) {
    const int64 first = mask.first + begin;
    shift_ = first % 8;  // blocks have eight elements
    const int64 words = ceil_div(shift_ + n, int64{kPhiloxHalves});
    philox_at_least(static_cast<std::uint64_t>(first / 8), words, mask.step, mask.key, mask.threshold,
                    words_);
    words_[words] = 0;  // NOLINT(clang-analyzer-security.ArrayBound): n is at most kKeptRun
  }

  // v, elements of the run from i on, scaled; dropped ones are 0 even where v is inf or NaN.
  HOTLOOP_INLINE Vec<real> drop(Vec<real> v, int64 i) const {
    const int64 bit = shift_ + i;
    std::uint32_t bits;  // 32 from the byte on that the first is in; a vector has 16 at most
    __builtin_memcpy(&bits, reinterpret_cast<const char*>(words_) + bit / 8, sizeof bits);
    return select(Mask<real>::of_bits(bits >> bit % 8), v * Vec<real>(scale_), Vec<real>::zero());
  }

 private:
  std::uint64_t words_[kKeptRun / kPhiloxHalves + 2];  // a word for the shift, and one that is only read
  int64 shift_;
  real scale_;
};

// Elements [begin, begin + n) of a call, a run at a time: body(i, count, kept) for i = 0, ... < n. The second
// run begins at element `head`, and all have whole vectors but for the first and the last.
template <class real, class Body>
HOTLOOP_INLINE void for_kept_runs(const DropoutMask<real>& mask, int64 begin, int64 n, int64 head,
                                  Body&& body) {
  const bool whole = (mask.first + begin + head) % 8 == 0;
  const int64 most =
      whole ? kKeptRun : kKeptRun - kPanel;  // with the rest of a block before it, no more words
  for (int64 i = 0; i < n;) {
    const int64 limit = i < head && head - i < most ? head - i : most;
    const int64 count = n - i < limit ? n - i : limit;
    const KeptBits<real> kept(mask, begin + i, count);
    body(i, count, kept);
    i += count;
  }
}

}  // namespace hotloop::HOTLOOP_ISA
