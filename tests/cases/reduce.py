# SPDX-License-Identifier: Apache-2.0
"""Cases of the reductions: rows (inner = 1), columns, several matrices, long runs, ties and NaN."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase

# (outer, reduce, inner): lengths around one and two vectors, runs of 1024 and of 64 rows, many chunks
SHAPES = [
    (0, 3, 1), (1, 1, 1), (1, 7, 1), (2, 8, 1), (3, 9, 1), (2, 16, 1), (5, 17, 1), (4, 33, 1), (3, 1025, 1),
    (1, 20000, 1), (1000, 10, 1), (2, 3, 0), (1, 1, 7), (1, 5, 8), (1, 64, 9), (1, 65, 16), (1, 130, 17),
    (2, 3, 33), (3, 2, 70), (40, 9, 30), (1, 300, 100), (1, 9000, 40),
]  # fmt: skip


def reduce_sum(outer: int, reduce: int, inner: int, mean: bool) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = rng.standard_normal((outer, reduce, inner)).astype(dtype)
        out = np.empty((outer, inner), dtype)
        return dict(out=out, x=x, outer=outer, reduce=reduce, inner=inner, mean=int(mean))

    return KernelCase("reduce_sum", f"{'mean' if mean else 'sum'} {outer}x{reduce}x{inner}", make)


def reduce_max(kernel: str, outer: int, reduce: int, inner: int, special: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = np.round(4 * rng.standard_normal((outer, reduce, inner))).astype(dtype)  # whole numbers tie
        if special:
            places = rng.choice(x.size, 6, replace=False)
            x.ravel()[places] = [np.nan, np.nan, np.inf, -np.inf, -np.inf, -0.0]
        sizes = dict(outer=outer, reduce=reduce, inner=inner)
        if kernel == "reduce_max_fwd":
            return dict(out=np.empty((outer, inner), dtype), x=x, **sizes)
        dout = rng.standard_normal((outer, inner)).astype(dtype)
        return dict(dx=np.empty_like(x), dout=dout, x=x, out=x.max(axis=1), **sizes)

    return KernelCase(kernel, f"{outer}x{reduce}x{inner}{' special' if special else ''}", make)


CASES = [
    *(reduce_sum(*shape, mean) for shape in SHAPES for mean in (False, True)),
    reduce_sum(2, 0, 3, mean=False),
    reduce_sum(3, 0, 1, mean=False),
    *(reduce_max(kernel, *shape) for kernel in ("reduce_max_fwd", "reduce_max_bwd") for shape in SHAPES),
    *(
        reduce_max(kernel, *shape, special=True)
        for kernel in ("reduce_max_fwd", "reduce_max_bwd")
        for shape in ((3, 19, 1), (7, 9, 1), (1, 6, 21), (2, 3, 40))
    ),
]
