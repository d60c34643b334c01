# SPDX-License-Identifier: Apache-2.0
"""Checks of layer arguments, made when a layer is constructed."""

from __future__ import annotations

import math

import numpy as np

from hotloop.errors import GraphError, ShapeError


def check_positive(where: str, **sizes: int) -> None:
    """Refuses sizes that are not whole numbers of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ShapeError(f"[{where}] {name} must be a whole number of at least 1, got {size!r}")


def check_real(where: str, *, at_least: float = -math.inf, **values: float) -> None:
    """Refuses numbers that are not finite or below ``at_least``."""
    for name, value in values.items():
        ok = isinstance(value, (int, float, np.number)) and math.isfinite(value) and value >= at_least
        if isinstance(value, bool) or not ok:
            limit = "" if at_least == -math.inf else f" of at least {at_least}"
            raise GraphError(f"[{where}] {name} must be a finite number{limit}, got {value!r}")
