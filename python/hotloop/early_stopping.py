# SPDX-License-Identifier: Apache-2.0
"""Which epoch is the best, and when to stop waiting for a better one.

`BestEpoch` drives the rollback, which is on with or without early stopping; `EarlyStopping` only decides
when to stop, with Keras's meaning of each argument. Both compare by `improves`, to which NaN is never better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Mode = Literal["auto", "min", "max"]

#: Endings of metric names that are better when larger; every other metric is better when smaller.
LARGER_IS_BETTER = ("accuracy", "r2")


def direction(monitor: str, mode: Mode = "auto") -> Literal["min", "max"]:
    """Whether a smaller or a larger value of the metric is better."""
    if mode != "auto":
        return mode
    return "max" if monitor.endswith(LARGER_IS_BETTER) else "min"


def improves(value: float, best: float | None, sense: Literal["min", "max"], min_delta: float = 0.0) -> bool:
    """Whether ``value`` beats ``best`` by more than ``min_delta``. NaN and infinity never do."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value < best - min_delta if sense == "min" else value > best + min_delta


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the monitored metric has not improved for ``patience`` epochs.

    patience          epochs without improvement after which the run stops; 0 stops at the first one
    min_delta         an improvement must be larger than this
    mode              "min", "max", or "auto": larger is better for accuracy and R2, smaller for the rest
    baseline          the metric must beat this value before patience is renewed
    start_from_epoch  epochs at the start that are not counted

    Raises `ValueError` for a negative number or an unknown mode.

    >>> hl.Trainer(model, early_stopping=hl.EarlyStopping(patience=5))  # doctest: +SKIP
    """

    patience: int = 10
    min_delta: float = 0.0
    mode: Mode = "auto"
    baseline: float | None = None
    start_from_epoch: int = 0

    def __post_init__(self) -> None:
        for name in ("patience", "start_from_epoch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"[EarlyStopping] {name} must be an integer >= 0, got {value!r}")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise ValueError(f"[EarlyStopping] min_delta must be a number >= 0, got {self.min_delta!r}")
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f'[EarlyStopping] mode must be "auto", "min" or "max", got {self.mode!r}')
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ValueError(f"[EarlyStopping] baseline must be finite or None, got {self.baseline!r}")


class Patience:
    """The running state of one `EarlyStopping` in one run."""

    def __init__(self, rule: EarlyStopping, monitor: str) -> None:
        self._rule = rule
        self._sense = direction(monitor, rule.mode)
        self._best: float | None = None
        self.waited = 0

    def should_stop(self, epoch: int, value: float) -> bool:
        """Take in the metric of one epoch (1-based); whether to stop after it."""
        rule = self._rule
        if epoch <= rule.start_from_epoch:
            return False
        self.waited += 1
        if improves(value, self._best, self._sense, rule.min_delta):
            self._best = value
            # Keras: patience is renewed only by what also beats the baseline.
            if improves(value, rule.baseline, self._sense, rule.min_delta):
                self.waited = 0
            return False
        return self.waited >= rule.patience and epoch > 1  # Keras never stops after the first epoch


class BestEpoch:
    """The epoch with the best monitored value so far; the first of equals."""

    def __init__(self, monitor: str, mode: Mode = "auto") -> None:
        self._sense = direction(monitor, mode)
        self.epoch: int | None = None
        self.value: float | None = None

    def update(self, epoch: int, value: float) -> bool:
        """Take in the metric of one epoch (1-based); whether it is the best now."""
        if not improves(value, self.value, self._sense):
            return False
        self.epoch, self.value = epoch, value
        return True
