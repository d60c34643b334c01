// SPDX-License-Identifier: Apache-2.0
// The machine's own limits, measured by the same units that hold the kernels.
#pragma once

namespace hotloop::generic {
double fma_peak(double seconds);
}
namespace hotloop::avx2 {
double fma_peak(double seconds);
}
namespace hotloop::avx512 {
double fma_peak(double seconds);
}
namespace hotloop::neon {
double fma_peak(double seconds);
}
