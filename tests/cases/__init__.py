# SPDX-License-Identifier: Apache-2.0
"""Inputs of every kernel, shared by tests and benchmarks: each module here is a family with its ``CASES``."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotloop.reference import Context

Fields = dict[str, Any]

#: What the kernels of all cases run under: dropout layers that keep all, most, nothing and half.
CONTEXT = Context(
    seed=0x1234_5678_9ABC_DEF0,
    run=3,
    step=(7 << 32) + 5,
    groups=((1e-2, 0.1), (1e-3, 0.0)),
    dropout=(0.0, 0.3, 1.0, 0.5),
    first_row=3,
    first=False,
)


@dataclass(frozen=True)
class KernelCase:
    """One call of a kernel.

    Attributes:
        kernel: its name in kernels.def.
        label: what is special about this call; unique within the kernel.
        make: (rng, dtype) -> every field of the kernel: arrays (outputs too), ints, floats, None.
        tolerance: largest error allowed, relative to the largest element; None: the harness's own rule.
        cancels: how many times larger than the results the terms of a difference are: it adds as many eps to
            the harness's rule.
        keep: outputs that also are inputs in this call, so that what they hold before it matters.
    """

    kernel: str
    label: str
    make: Callable[[np.random.Generator, type], Fields]
    tolerance: float | None = None
    cancels: float = 0.0
    keep: tuple[str, ...] = ()

    def fields(self, dtype: type) -> Fields:
        """The same values in every test and every run."""
        return self.make(np.random.default_rng(zlib.crc32(f"{self.kernel} {self.label}".encode())), dtype)


CASES: list[KernelCase] = [
    case
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__))
    for case in importlib.import_module(f"{__name__}.{module}").CASES
]
