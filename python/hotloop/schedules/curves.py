# SPDX-License-Identifier: Apache-2.0
"""Schedules that are one curve over the run, from the end of the warm-up to the last step."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from hotloop.schedules.base import Factors, Schedule, Steps, Warmup, check


@dataclass(frozen=True)
class Constant(Schedule):
    """The optimiser's learning rate throughout: ``1``.

    >>> Constant(warmup=4).factors(6).tolist()
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    kind: ClassVar[str] = "constant"
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self)

    def _curve(self, at: Steps) -> Factors:
        return np.ones(len(at.step))


@dataclass(frozen=True)
class Linear(Schedule):
    """From ``start_factor`` to ``end_factor`` over the run: ``start + (end - start) t/n`` (torch's LinearLR).

    >>> Linear(1.0, 0.5).factors(2).tolist()
    [1.0, 0.75]
    """

    kind: ClassVar[str] = "linear"
    start_factor: float = 1.0
    end_factor: float = 0.0
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, start_factor=(0, math.inf), end_factor=(0, math.inf))

    def _curve(self, at: Steps) -> Factors:
        return self.start_factor + (self.end_factor - self.start_factor) * at.progress


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From 1 to ``final`` along a power of what is left: ``final + (1 - final) (1 - t/n) ** power`` (Keras's
    PolynomialDecay; torch's PolynomialLR, whose ``final`` is 0).

    >>> Polynomial(2.0).factors(4).tolist()
    [1.0, 0.5625, 0.25, 0.0625]
    """

    kind: ClassVar[str] = "polynomial"
    power: float = 1.0
    final: float = 0.0
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, power=(0, math.inf), final=(0, math.inf))

    def _curve(self, at: Steps) -> Factors:
        return self.final + (1 - self.final) * (1 - at.progress) ** self.power


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``final``: ``final + (1 - final) (1 + cos(pi t/n)) / 2`` (Loshchilov and
    Hutter 2017, torch's CosineAnnealingLR, Keras's CosineDecay).

    >>> Cosine().factors(2).round(6).tolist()
    [1.0, 0.5]
    """

    kind: ClassVar[str] = "cosine"
    final: float = 0.0
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, final=(0, math.inf))

    def _curve(self, at: Steps) -> Factors:
        return self.final + (1 - self.final) * (1 + np.cos(np.pi * at.progress)) / 2
