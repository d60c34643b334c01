# SPDX-License-Identifier: Apache-2.0
"""Which epoch is the best, and when to stop waiting for a better one.

`BestEpoch` drives the rollback, which is on with or without early stopping; `EarlyStopping` only decides
when to stop, after the same epoch as Keras's callback. Both compare by `improves`, to which NaN and infinity
are never better; docs/early_stopping.md has the whole rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hotloop.arguments import choice, count, number

Mode = Literal["auto", "min", "max"]

#: Endings of metric names that are better when smaller; every other metric is better when larger, as are all
#: of scikit-learn's scorers, of which one ends as a loss does.
SMALLER_IS_BETTER = ("loss", "mse", "mae")
_SCORER = "neg_log_loss"


def direction(monitor: str, mode: Mode = "auto") -> Literal["min", "max"]:
    """Whether a smaller or a larger value of the metric is better."""
    if mode != "auto":
        return mode
    return "min" if monitor.endswith(SMALLER_IS_BETTER) and not monitor.endswith(_SCORER) else "max"


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
    mode              "min", "max", or "auto": smaller is better for losses, MSE and MAE, larger for the rest
    baseline          patience is renewed only by improvements that also beat this value by ``min_delta``
    start_from_epoch  epochs at the start that are not counted

    The rollback knows of none of these: it goes back to the best epoch of all that ran.

    Raises `ValueError` or `TypeError` for a negative number, an unknown mode, or another type.

    >>> import hotloop as hl
    >>> trainer = hl.Trainer(hl.nn.Linear(3, 1), early_stopping=hl.EarlyStopping(patience=5))
    """

    patience: int = 10
    min_delta: float = 0.0
    mode: Mode = "auto"
    baseline: float | None = None
    start_from_epoch: int = 0

    def __post_init__(self) -> None:
        where = "EarlyStopping"
        for name in ("patience", "start_from_epoch"):
            object.__setattr__(self, name, count(where, name, getattr(self, name)))
        object.__setattr__(self, "min_delta", number(where, "min_delta", self.min_delta, low=0))
        choice(where, "mode", self.mode, ("auto", "min", "max"))
        if self.baseline is not None:
            object.__setattr__(self, "baseline", number(where, "baseline", self.baseline))


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
        better = improves(value, self._best, self._sense, rule.min_delta)
        if better:
            self._best = value
        elif epoch > rule.start_from_epoch + 1:
            return self.waited >= rule.patience
        # The first epoch that counts never ends a run, whatever its value is: there was nothing to wait for.
        if rule.baseline is None or improves(value, rule.baseline, self._sense, rule.min_delta):
            self.waited = 0
        return False

    def state(self) -> dict[str, Any]:
        """Plain data from which `load` goes on."""
        return {"best": self._best, "waited": self.waited}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._best, self.waited = _optional(float, state["best"]), int(state["waited"])


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

    def state(self) -> dict[str, Any]:
        """Plain data from which `load` goes on."""
        return {"epoch": self.epoch, "value": self.value}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.epoch, self.value = _optional(int, state["epoch"]), _optional(float, state["value"])


def _optional(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value)
