# SPDX-License-Identifier: Apache-2.0
"""Checks of plain numbers given by users, with one wording for all of hotloop.

Each returns a Python number, so that specifications compare, hash, print and turn into JSON alike whether
they were given Python or NumPy scalars. Booleans are not numbers here.
"""

from __future__ import annotations

import math

import numpy as np


def number(where: str, name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float in [low, high]. Raises `TypeError` or `ValueError`.

    >>> number("AdamW", "lr", np.float32(0.5), low=0)
    0.5
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"[{where}] {name} must be a number, got {value!r:.80}")
    result = float(value)
    if not (math.isfinite(result) and low <= result <= high):
        raise ValueError(f"[{where}] {name} must be {_range(low, high)}, got {result:g}")
    return result


def positive(where: str, name: str, value: object) -> float | None:
    """``value`` as a float above 0, or None for None. Raises `TypeError` or `ValueError`.

    >>> positive("Trainer", "clip_norm", 1)
    1.0
    """
    if value is None:
        return None
    result = number(where, name, value, low=0)
    if result == 0:
        raise ValueError(f"[{where}] {name} must be > 0 or None, got 0")
    return result


def rate(where: str, name: str, value: object) -> float:
    """``value`` as a float in [0, 1): what is kept of a running mean.

    >>> rate("SGD", "momentum", 0.9)
    0.9
    """
    result = number(where, name, value)
    if not 0 <= result < 1:
        raise ValueError(f"[{where}] {name} must be in [0, 1), got {result:g}")
    return result


def count(where: str, name: str, value: object, *, low: int = 0) -> int:
    """``value`` as an int of at least ``low``. Raises `TypeError` or `ValueError`.

    >>> count("Step", "every", np.int64(3), low=1)
    3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"[{where}] {name} must be a whole number, got {value!r:.80}")
    if value < low:
        raise ValueError(f"[{where}] {name} must be >= {low}, got {value}")
    return int(value)


def choice(where: str, name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises `ValueError` unless ``value`` is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"[{where}] {name} must be one of {', '.join(map(repr, allowed))}, got {value!r:.80}"
        )


def function_name(function: object) -> str:
    """The name under which files mention a Python callable: ``module.qualified_name``.

    >>> function_name(np.linalg.norm)
    'numpy.linalg.norm'
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return "finite" if math.isinf(low) else f"finite and >= {low:g}"
    return f"<= {high:g}" if math.isinf(low) else f"between {low:g} and {high:g}"
