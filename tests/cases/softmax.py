# SPDX-License-Identifier: Apache-2.0
"""Cases of softmax and log_softmax: every tail, long rows, and logits at the ends of the range."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase

SHAPES = [(0, 5), (1, 1), (1, 2), (3, 7), (2, 8), (5, 9), (1, 10), (4, 16), (3, 17), (2, 33), (1000, 10),
          (2, 1000), (2, 2049)]  # fmt: skip


def _log_softmax(x: np.ndarray) -> np.ndarray:
    below = x - x.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def forward(kernel: str, rows: int, cols: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = (3 * rng.standard_normal((rows, cols))).astype(dtype)
        return dict(y=np.empty_like(x), x=x, rows=rows, cols=cols)

    return KernelCase(kernel, f"{rows}x{cols}", make)


def backward(kernel: str, rows: int, cols: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        y = _log_softmax(3 * rng.standard_normal((rows, cols)))
        y = (y if kernel.startswith("log") else np.exp(y)).astype(dtype)
        dy = rng.standard_normal((rows, cols)).astype(dtype)
        return dict(dx=np.empty_like(y), dy=dy, y=y, rows=rows, cols=cols)

    return KernelCase(kernel, f"{rows}x{cols}", make)


def special(kernel: str) -> KernelCase:
    """One row each: huge, a class ruled out, equal, far below the maximum, NaN, +inf, nothing possible."""

    def make(rng: np.random.Generator, dtype: type) -> Fields:
        rows, cols = 9, 11
        x = rng.standard_normal((rows, cols)).astype(dtype)
        x[0] *= 1e30
        x[1, ::2] = 1e30
        x[1, 1::2] = -1e30
        x[2, 3] = -np.inf
        x[3] = 2.5
        x[4, 1:] -= 80
        x[5, 10] = np.nan
        x[6, 0] = np.inf
        x[7] = -np.inf
        return dict(y=np.empty_like(x), x=x, rows=rows, cols=cols)

    return KernelCase(kernel, "special", make)


CASES = [
    *(forward(kernel, *shape) for kernel in ("softmax_fwd", "log_softmax_fwd") for shape in SHAPES),
    *(backward(kernel, *shape) for kernel in ("softmax_bwd", "log_softmax_bwd") for shape in SHAPES),
    special("softmax_fwd"),
    special("log_softmax_fwd"),
]
