// SPDX-License-Identifier: Apache-2.0
// Picks the vector header of the unit being compiled. Every one of them gives, in namespace
// hotloop::HOTLOOP_ISA, the same names:
//
//   Vec<real>            `width` lanes: Vec(scalar), load, load_n, store, store_n, zero
//   Mask<real>           result of <, <=, ==, is_nan;  &, |, ~;  Mask::first(n): the lanes below n;
//                        Mask::of_bits(b): lane i by bit i
//   + - * / and unary -, fma(a, b, c) = a*b + c, fnma(a, b, c) = c - a*b
//   max, min             as maxps: the second operand if either is NaN
//   sqrt, abs, select(mask, a, b), sum(v), max_lane(v)   (fixed order of lanes)
//   exp, expm1, log, tanh, sigmoid, erf, normal_cdf, log1p_exp       in kernels/vec_math.h
//
// load_n(p, n) and store_n(p, n) touch exactly n < width elements (0 allowed); other lanes load as 0.
// Tails use them instead of scalar code, so an element's bits never depend on where it stands.
#pragma once

#include "core/host_device.h"
#include "core/types.h"

#define HOTLOOP_VEC_generic "cpu/vec_generic.h"
#define HOTLOOP_VEC_avx2 "cpu/vec_avx2.h"
#define HOTLOOP_VEC_avx512 "cpu/vec_avx512.h"
#define HOTLOOP_VEC_neon "cpu/vec_neon.h"
#define HOTLOOP_VEC_cuda "cuda/vec_cuda.h"
#define HOTLOOP_VEC_HEADER_(isa) HOTLOOP_VEC_##isa
#define HOTLOOP_VEC_HEADER(isa) HOTLOOP_VEC_HEADER_(isa)
#include HOTLOOP_VEC_HEADER(HOTLOOP_ISA)
