// SPDX-License-Identifier: Apache-2.0
// Qualifiers that let one function body serve the host and the device.
#pragma once

#ifdef __CUDACC__
#define HOTLOOP_HD __host__ __device__
#else
#define HOTLOOP_HD
#endif

#define HOTLOOP_RESTRICT __restrict__
#define HOTLOOP_INLINE HOTLOOP_HD inline __attribute__((always_inline))
