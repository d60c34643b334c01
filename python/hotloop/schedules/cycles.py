# SPDX-License-Identifier: Apache-2.0
"""Schedules that rise again: cosines with warm restarts, and one large cycle."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np

from hotloop.arguments import choice, count
from hotloop.schedules.base import Factors, Schedule, Steps, Warmup, check


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Half a cosine from 1 to ``final``, again and again: the first takes ``first`` epochs, each next one
    ``mult`` times as many, and begins at ``gamma`` times the height (Loshchilov and Hutter 2017, SGDR).

    ``final + (1 - final) gamma**i (1 + cos(pi part)) / 2`` in cycle i, of which ``part`` is done. Evaluated in
    every step, so that it falls within epochs too (torch's CosineAnnealingWarmRestarts stepped by fractions of
    an epoch, Keras's CosineDecayRestarts, whose t_mul and m_mul are mult and gamma).

    >>> CosineRestarts(2, 2).factors(6).round(6).tolist()
    [1.0, 0.5, 1.0, 0.853553, 0.5, 0.146447]
    """

    kind: ClassVar[str] = "cosine_restarts"
    first: int
    mult: float = 1.0
    final: float = 0.0
    _: KW_ONLY
    gamma: float = 1.0
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, mult=(1, math.inf), final=(0, math.inf), gamma=(0, math.inf))
        object.__setattr__(self, "first", count("CosineRestarts", "first", self.first, low=1))

    def _curve(self, at: Steps) -> Factors:
        starts, length = [0.0], float(self.first * at.per_epoch)
        while starts[-1] + length < at.n_after:
            starts.append(starts[-1] + length)
            length *= self.mult
        begin = np.array(starts)
        cycle = np.searchsorted(begin, at.after, side="right") - 1
        lengths = np.append(np.diff(begin), length)
        part = (at.after - begin[cycle]) / lengths[cycle]
        height = np.float64(self.gamma) ** cycle
        return cast(Factors, self.final + (1 - self.final) * height * (1 + np.cos(np.pi * part)) / 2)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from ``max_lr / div_factor`` to ``max_lr`` in the first ``pct_start`` of the run, then down to
    ``max_lr / (div_factor * final_div_factor)`` at its last step (Smith 2018, torch's OneCycleLR).

    ``max_lr=None`` takes the optimiser's learning rate as the peak. ``anneal`` is "cos" or "linear".

    >>> OneCycle(pct_start=0.5, div_factor=2, final_div_factor=2, anneal="linear").factors(4).tolist()
    [0.5, 1.0, 0.625, 0.25]
    """

    kind: ClassVar[str] = "one_cycle"
    max_lr: float | None = None
    pct_start: float = 0.3
    _: KW_ONLY
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal: Literal["cos", "linear"] = "cos"
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, pct_start=(0, 1), div_factor=(1e-30, math.inf), final_div_factor=(1e-30, math.inf))
        if self.max_lr is not None:
            check(self, max_lr=(0, math.inf))
        choice("OneCycle", "anneal", self.anneal, ("cos", "linear"))

    def _curve(self, at: Steps) -> Factors:
        peak, t, n = self._peak(at.base_lr), at.after, at.n_after
        low, last = peak / self.div_factor, peak / self.div_factor / self.final_div_factor
        # The peak stands at step pct_start * n - 1, the end at step n - 1.
        turn, end = self.pct_start * n - 1, n - 1.0
        up = self._between(low, peak, t / turn if turn else np.ones(len(t)))
        down = self._between(peak, last, (t - turn) / (end - turn) if end > turn else np.ones(len(t)))
        return np.where(t <= turn, up, down)

    def _peak(self, base_lr: float | None) -> float:
        if self.max_lr is None:
            return 1.0
        if base_lr is None or not base_lr > 0:
            raise ValueError(f"[OneCycle] max_lr needs the optimizer's learning rate > 0, got {base_lr}")
        return self.max_lr / base_lr

    def _between(self, start: float, end: float, part: Any) -> Factors:
        if self.anneal == "linear":
            return cast(Factors, start + (end - start) * part)
        return cast(Factors, end + (start - end) / 2 * (1 + np.cos(np.pi * part)))
