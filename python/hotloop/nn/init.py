# SPDX-License-Identifier: Apache-2.0
"""How parameters begin: distributions as data, drawn from a stream per parameter.

Each parameter has a Philox generator of its own, keyed by (seed, position in the state dict), and only the
raw 64-bit words are used. So a value depends on nothing but seed, position and element, on every platform
and under every version of NumPy, whose raw streams are stable by policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]


class Init(Protocol):
    """A distribution: `sample` fills a new float32 array from raw words."""

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array: ...


@dataclass(frozen=True)
class Constant:
    """Every element is ``value``."""

    value: float = 0.0

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array:
        return np.full(shape, self.value, np.float32)


@dataclass(frozen=True, eq=False)
class Values:
    """The values of an array, whatever the seed."""

    array: Array

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array:
        values: Array = self.array.reshape(shape).copy()
        return values


@dataclass(frozen=True)
class Uniform:
    """U[-bound, bound): 24 bits an element, as many as a float32 below 1 can tell apart."""

    bound: float

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array:
        unit = (bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float64) * 2.0**-24
        values: Array = (self.bound * (2.0 * unit - 1.0)).astype(np.float32)
        return values.reshape(shape)


@dataclass(frozen=True)
class Normal:
    """N(0, std^2): two words give two values (Box and Muller, Annals of Mathematical Statistics 29, 1958)."""

    std: float = 1.0

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array:
        n = math.prod(shape)
        words = bits.random_raw(2 * ((n + 1) // 2)).reshape(-1, 2) >> np.uint64(11)
        radius = np.sqrt(-2.0 * np.log((words[:, 0].astype(np.float64) + 1.0) * 2.0**-53))  # of (0, 1]
        angle = words[:, 1].astype(np.float64) * (2.0 * math.pi * 2.0**-53)
        pairs = self.std * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return pairs.reshape(-1)[:n].astype(np.float32).reshape(shape)


def stream(seed: int, position: int) -> np.random.Philox:
    """The generator of the parameter at ``position`` of the state dict."""
    return np.random.Philox(key=np.array([seed, position], np.uint64))
