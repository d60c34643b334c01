// SPDX-License-Identifier: Apache-2.0
// The shuffled order of a batch at once: vectors of positions go through the network together, which costs
// a fraction of a nanosecond a row; one position at a time waits for each multiplication.
#pragma once

#include "core/shuffle.h"
#include "core/types.h"

namespace hotloop {

// rows[i] = permutation(first + i) for i in [0, count); positions first + i below the permutation's n.
using ShuffleRows = void (*)(const Permutation& permutation, int64 first, int64 count, int64* rows);

namespace generic {
void shuffle_rows(const Permutation& permutation, int64 first, int64 count, int64* rows);
}
namespace avx2 {
void shuffle_rows(const Permutation& permutation, int64 first, int64 count, int64* rows);
}
namespace avx512 {
void shuffle_rows(const Permutation& permutation, int64 first, int64 count, int64* rows);
}
namespace neon {
void shuffle_rows(const Permutation& permutation, int64 first, int64 count, int64* rows);
}

}  // namespace hotloop
