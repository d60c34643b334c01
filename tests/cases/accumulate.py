# SPDX-License-Identifier: Apache-2.0
"""Cases of gradient accumulation: first, middle and last batches, whole or without weight."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase
from tests.cases.optim import SIZES


def begin(label: str, tally: tuple[float, float], total: float) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        return dict(scalars=np.empty(4), tally=np.array(tally), total=np.array([total]))

    return KernelCase("accumulate_begin", label, make)


def accumulate(n: int, label: str, *scalars: float) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        kept, grad = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        if not scalars[0]:
            kept[:] = np.nan  # whatever stood there must not show
        return dict(sum=kept, grad=grad, scalars=np.array(scalars), n=n)

    return KernelCase("accumulate", f"{n} {label}", make)


CASES = [
    begin("later", (24.0, 8.0), 6.0),
    begin("nothing before", (0.0, 0.0), 6.0),
    begin("no weight yet", (0.0, 0.0), 0.0),
    begin("no weight now", (24.0, 8.0), 0.0),
    begin("tiny weights", (2e-300, 1e-300), 1e-300),
    *(
        accumulate(n, label, *scalars)
        for n in SIZES
        for label, scalars in {
            "first": (0.0, 1.0, 0.0, 0.5),
            "later": (1.0, 0.75, 0.0, 0.5),
            "last": (1.0, 0.75, 1.0, 0.25),
            "only": (0.0, 1.0, 1.0, 1.0),
        }.items()
    ),
]
