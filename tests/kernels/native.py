# SPDX-License-Identifier: Apache-2.0
"""Calling one native kernel by hand: what the tests of single properties share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hotloop import _core
from tests.kernels.harness import SCHEMA, UNITS

units = pytest.mark.parametrize(("isa", "dtype"), UNITS, ids=[f"{i}-{np.dtype(d).name}" for i, d in UNITS])


def run(kernel: str, isa: str, *, groups: tuple[float, ...] = (), **fields: Any) -> SimpleNamespace:
    """Run ``kernel`` with the fields given; others are absent operands or 0. Returns all of them by name."""
    unknown = set(fields) - {name for name, _, _ in SCHEMA[kernel]}
    assert not unknown, f"{kernel} has no {unknown}"
    values = {name: fields.get(name, None if element else 0) for name, _, element in SCHEMA[kernel]}
    _core.run_kernel(kernel, values, isa=isa, groups=list(groups))
    return SimpleNamespace(**values)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
