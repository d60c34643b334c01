# SPDX-License-Identifier: Apache-2.0
"""Schedules that fall after epochs, which they count from the start of the run, warm-up or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, cast

import numpy as np

from hotloop.arguments import count
from hotloop.schedules.base import Factors, Schedule, Steps, Warmup, check


@dataclass(frozen=True)
class Step(Schedule):
    """Times ``gamma`` after every ``every`` epochs: ``gamma ** (epoch // every)`` (torch's StepLR).

    >>> Step(2, 0.1).factors(5).round(6).tolist()
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    kind: ClassVar[str] = "step"
    every: int
    gamma: float = 0.1
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, gamma=(0, math.inf))
        object.__setattr__(self, "every", count("Step", "every", self.every, low=1))

    def _curve(self, at: Steps) -> Factors:
        return cast(Factors, np.float64(self.gamma) ** (at.epoch // self.every))


@dataclass(frozen=True)
class MultiStep(Schedule):
    """Times ``gamma`` after each of the epochs in ``milestones``, whole numbers that increase: ``gamma **
    (milestones passed)`` (torch's MultiStepLR, Keras's PiecewiseConstantDecay). Those behind the end of the
    run do nothing.

    >>> MultiStep([2, 3], 0.1).factors(5).round(6).tolist()
    [1.0, 1.0, 0.1, 0.01, 0.01]
    """

    kind: ClassVar[str] = "multi_step"
    milestones: Sequence[int]
    gamma: float = 0.1
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, gamma=(0, math.inf))
        where, given = "MultiStep", self.milestones
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TypeError(
                f"[{where}] milestones must be a sequence of epochs, as [30, 60], got {given!r:.80}"
            )
        epochs = tuple(count(where, f"milestones[{i}]", epoch, low=1) for i, epoch in enumerate(given))
        if not epochs:
            raise ValueError(f"[{where}] milestones must hold at least one epoch, got none")
        for i in range(1, len(epochs)):
            if epochs[i] <= epochs[i - 1]:
                raise ValueError(
                    f"[{where}] milestones must increase, got {epochs[i]} after {epochs[i - 1]} at index {i}"
                )
        object.__setattr__(self, "milestones", epochs)  # a tuple, which hashes

    def _curve(self, at: Steps) -> Factors:
        passed = np.searchsorted(np.array(self.milestones), at.epoch, side="right")
        return cast(Factors, np.float64(self.gamma) ** passed)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Times ``gamma`` after every epoch: ``gamma ** epoch`` (torch's ExponentialLR). With ``staircase=False``
    it falls in every step and meets the same values at the starts of epochs: ``gamma ** (t / steps per
    epoch)`` (Keras's ExponentialDecay, which has both).

    >>> Exponential(0.5).factors(4, 2).tolist()
    [1.0, 1.0, 0.5, 0.5]
    """

    kind: ClassVar[str] = "exponential"
    gamma: float
    _: KW_ONLY
    staircase: bool = True
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, gamma=(0, math.inf))
        if not isinstance(self.staircase, bool):
            raise TypeError(f"[Exponential] staircase must be True or False, got {self.staircase!r:.80}")

    def _curve(self, at: Steps) -> Factors:
        epochs = at.epoch if self.staircase else at.step / at.per_epoch
        return cast(Factors, np.float64(self.gamma) ** epochs)
