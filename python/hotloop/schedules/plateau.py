# SPDX-License-Identifier: Apache-2.0
"""The schedule that looks at the run: the rate falls when the monitored metric no longer improves.

It cannot be a table of the run. Its state is a tracker of plain numbers, which travels in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hotloop.arguments import choice, count
from hotloop.schedules.base import Factors, Schedule, Steps, Warmup, check


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Times ``factor`` when the monitored metric has not improved for more than ``patience`` epochs
    (torch's ReduceLROnPlateau). It acts at epoch ends, through `tracker`; `factors` holds the warm-up only.

    Args:
        factor: in (0, 1).
        patience, cooldown: epochs, >= 0.
        threshold: what counts as better: ``m < best (1 - threshold)``, or ``m < best - threshold`` if
            threshold_mode is "abs"; mirrored for "max".
        min_lr: no lower learning rate than this.
        mode: "min", "max", or "auto": the tracker is told.

    >>> tracker = ReduceOnPlateau(0.5, 1).tracker(base_lr=0.1)
    >>> [tracker.update(loss) for loss in (3.0, 2.0, 2.0, 2.0)]
    [1.0, 1.0, 1.0, 0.5]
    """

    kind: ClassVar[str] = "reduce_on_plateau"
    factor: float = 0.1
    patience: int = 10
    _: KW_ONLY
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    mode: Literal["auto", "min", "max"] = "auto"
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        check(self, factor=(0, 1), threshold=(0, math.inf), min_lr=(0, math.inf))
        for name in ("patience", "cooldown"):
            object.__setattr__(self, name, count("ReduceOnPlateau", name, getattr(self, name)))
        if not 0 < self.factor < 1:
            raise ValueError(f"[ReduceOnPlateau] factor must be in (0, 1), got {self.factor}")
        choice("ReduceOnPlateau", "threshold_mode", self.threshold_mode, ("rel", "abs"))
        choice("ReduceOnPlateau", "mode", self.mode, ("auto", "min", "max"))

    def tracker(self, base_lr: float = 1.0, *, maximize: bool = False) -> PlateauTracker:
        """A fresh tracker for a run at ``base_lr``. ``maximize`` says what better means under mode "auto"."""
        upward = maximize if self.mode == "auto" else self.mode == "max"
        return PlateauTracker(self, float(base_lr), upward, best=-math.inf if upward else math.inf)

    def _curve(self, at: Steps) -> Factors:
        return np.ones(len(at.step))


#: What changes in a tracker while a run goes on.
_TRACKED: dict[str, Any] = {"best": float, "factor": float, "bad_epochs": int, "cooldown_left": int}


@dataclass
class PlateauTracker:
    """What `ReduceOnPlateau` remembers of a run; plain numbers, so that a checkpoint can hold them."""

    schedule: ReduceOnPlateau
    base_lr: float
    maximize: bool
    best: float
    factor: float = 1.0
    bad_epochs: int = 0
    cooldown_left: int = 0

    def update(self, metric: float) -> float:
        """Take an epoch's metric; the factor for the next epoch. NaN never counts as better."""
        if self._better(float(metric)):
            self.best, self.bad_epochs = float(metric), 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.schedule.patience:
            self._reduce()
            self.cooldown_left, self.bad_epochs = self.schedule.cooldown, 0
        return self.factor

    def state(self) -> dict[str, Any]:
        """Plain data from which `load` goes on."""
        return {name: getattr(self, name) for name in _TRACKED}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        for name, kind in _TRACKED.items():
            setattr(self, name, kind(state[name]))

    def _better(self, metric: float) -> bool:
        threshold = self.schedule.threshold
        if self.schedule.threshold_mode == "abs":
            return metric > self.best + threshold if self.maximize else metric < self.best - threshold
        return metric > self.best * (1 + threshold) if self.maximize else metric < self.best * (1 - threshold)

    def _reduce(self) -> None:
        lr = self.base_lr * self.factor
        lower = max(lr * self.schedule.factor, self.schedule.min_lr)
        if lr - lower > 1e-8:  # torch's eps: smaller steps are not worth taking
            self.factor = lower / self.base_lr
