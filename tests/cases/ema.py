# SPDX-License-Identifier: Apache-2.0
"""Cases of the moving average of parameters: the first update, later ones, and none."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase
from tests.cases.optim import SIZES


def begin(label: str, counter: int, total: float | None) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        return dict(
            scalars=np.empty(1),
            counter=np.array([counter], np.int64),
            total=None if total is None else np.array([total]),
            decay=0.999,
        )

    return KernelCase("ema_begin", label, make)


def ema(n: int, weight: float) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        average, param = (rng.standard_normal(n).astype(dtype) for _ in range(2))
        return dict(average=average, param=param, scalars=np.array([weight]), n=n)

    return KernelCase("ema", f"{n} weight={weight:g}", make)


CASES = [
    begin("first", 0, None),
    begin("later", 7, 2.0),
    begin("skip", 0, 0.0),
    *(ema(n, weight) for n in SIZES for weight in (1.0, 0.0, 0.001, 0.5)),
]
