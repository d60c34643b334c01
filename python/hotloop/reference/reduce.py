# SPDX-License-Identifier: Apache-2.0
"""What the reductions compute, in float64 NumPy: the formulas of args.h, one line each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from hotloop.reference import Context, reference


@reference("reduce_sum")
def reduce_sum(a: SimpleNamespace, ctx: Context) -> None:
    x = a.x.reshape(a.outer, a.reduce, a.inner)
    divisor = np.float64(a.reduce if a.mean else 1)
    a.out[:] = (x.sum(axis=1) / divisor).ravel()


@reference("reduce_max_fwd")
def reduce_max_fwd(a: SimpleNamespace, ctx: Context) -> None:
    a.out[:] = a.x.reshape(a.outer, a.reduce, a.inner).max(axis=1).ravel()


@reference("reduce_max_bwd")
def reduce_max_bwd(a: SimpleNamespace, ctx: Context) -> None:
    x = a.x.reshape(a.outer, a.reduce, a.inner)
    largest = a.out.reshape(a.outer, 1, a.inner)
    dout = a.dout.reshape(a.outer, 1, a.inner)
    is_largest = x == largest
    ties = np.maximum(is_largest.sum(axis=1, keepdims=True), 1)
    a.dx[:] = np.where(is_largest, dout / ties, 0.0).ravel()
