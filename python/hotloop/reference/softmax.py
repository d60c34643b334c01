# SPDX-License-Identifier: Apache-2.0
"""What softmax and log_softmax compute over the last dimension, in float64 NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, reference

Array = npt.NDArray[np.float64]


def log_softmax(x: Array) -> Array:
    """log_softmax of x (rows, cols) over cols. A row with NaN, +inf or nothing but -inf is NaN.

    >>> log_softmax(np.zeros((1, 2)))
    array([[-0.69314718, -0.69314718]])
    """
    below = x - x.max(axis=1, keepdims=True)
    result: Array = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    return result


@reference("softmax_fwd")
def softmax_fwd(a: SimpleNamespace, ctx: Context) -> None:
    a.y[:] = np.exp(log_softmax(a.x.reshape(a.rows, a.cols))).ravel()


@reference("softmax_bwd")
def softmax_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, y = (v.reshape(a.rows, a.cols) for v in (a.dy, a.y))
    a.dx[:] = (y * (dy - (dy * y).sum(axis=1, keepdims=True))).ravel()


@reference("log_softmax_fwd")
def log_softmax_fwd(a: SimpleNamespace, ctx: Context) -> None:
    a.y[:] = log_softmax(a.x.reshape(a.rows, a.cols)).ravel()


@reference("log_softmax_bwd")
def log_softmax_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, y = (v.reshape(a.rows, a.cols) for v in (a.dy, a.y))
    a.dx[:] = (dy - np.exp(y) * dy.sum(axis=1, keepdims=True)).ravel()
