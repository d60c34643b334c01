# SPDX-License-Identifier: Apache-2.0
"""A run as the rules see it: curves as arrays, the first validation set, and what a guess would score.

Computed from a `History` alone and never writing to it; what an old file does not hold is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop.early_stopping import direction
from hotloop.evidence import DataSet, Evidence, Setup

if TYPE_CHECKING:
    from hotloop.history import History
    from hotloop.probes.learning_curve import LearningCurve

Z95 = 1.96  # two-sided 95 % of a normal distribution


@dataclass(frozen=True)
class Gap:
    """Training against validation in one epoch: both scores, their distance, and whether it is more than
    the size of the validation set explains."""

    train: float
    val: float
    distance: float
    certain: bool


@dataclass(frozen=True)
class View:
    """What the rules read."""

    history: History
    curve: LearningCurve | None = None

    @property
    def evidence(self) -> Evidence | None:
        return self.history.evidence

    @property
    def setup(self) -> Setup | None:
        return None if self.evidence is None else self.evidence.setup

    @property
    def epochs(self) -> int:
        return self.history.epochs

    def values(self, name: str) -> Any:
        """A curve, float64 (epochs,); empty if there is none."""
        return np.asarray(self.history.history.get(name, ()), np.float64)

    @cached_property
    def loss(self) -> Any:
        """The training loss, (epochs,)."""
        return self.values("loss")

    @cached_property
    def val_name(self) -> str | None:
        """The first validation set; of an old file, by the curves there are."""
        if self.evidence is not None:
            return self.evidence.validation[0].name if self.evidence.validation else None
        names = [name[:-5] for name in self.history.history if name.endswith("_loss")]
        return names[0] if names else None

    @cached_property
    def val_loss(self) -> Any:
        return self.values(f"{self.val_name}_loss")

    @property
    def train_set(self) -> DataSet | None:
        return None if self.evidence is None else self.evidence.train

    @property
    def val_set(self) -> DataSet | None:
        if self.evidence is None or self.val_name is None:
            return None
        return next((s for s in self.evidence.validation if s.name == self.val_name), None)

    @property
    def baseline(self) -> float | None:
        """The training loss of the best constant prediction."""
        found = None if self.train_set is None else self.train_set.baseline
        return found if found else None  # 0 cannot be beaten, and divides nothing

    @property
    def unit(self) -> float:
        """What losses are measured by: a guess's loss, or the first epoch's where that is not known."""
        first = abs(float(self.loss[0])) if len(self.loss) else 0.0
        return self.baseline or (first if 0 < first < math.inf else 1.0)

    @property
    def best(self) -> int:
        """Index of the best epoch by the monitored metric; the last if none is known."""
        best = self.history.best_epoch
        return (best if best is not None else self.epochs) - 1

    @property
    def kept_best(self) -> bool:
        """Whether the model that the run left is that of the best epoch."""
        return self.val_name is not None and (self.setup is None or self.setup.restore_best)

    @cached_property
    def explained(self) -> Any:
        """1 - loss / baseline of each epoch: 0 is a guess, 1 perfect; empty without a baseline."""
        return 1 - self.loss / self.baseline if self.baseline else self.loss[:0]

    def monitored(self) -> tuple[str, Any, int]:
        """The monitored metric: its name, its values, and -1 if smaller is better, else 1."""
        name = self.history.monitor
        return name, self.values(name), 1 if direction(name) == "max" else -1

    def gap(self, epoch: int) -> Gap | None:
        """Accuracy, or else the loss, of training and validation in an epoch (an index)."""
        rows = self.val_set.rows if self.val_set else None
        train, val = self.values("accuracy"), self.values(f"{self.val_name}_accuracy")
        if len(train) and len(val):
            t, v = float(train[epoch]), float(val[epoch])
            return Gap(t, v, t - v, rows is None or t > wilson(v, rows)[1])
        if not len(self.val_loss) or not self.baseline:
            return None
        t, v = float(self.loss[epoch]), float(self.val_loss[epoch])
        # the mean of n squared errors varies by sqrt(2 / n) of itself; twice that, for heavier tails
        bound = math.inf if rows is None else 1 + 2 * Z95 * math.sqrt(2 / rows)
        return Gap(t, v, (v - t) / self.baseline, v > bound * t)

    @property
    def has_accuracy(self) -> bool:
        return len(self.values("accuracy")) > 0

    def optimizer_with(self, factor: float) -> str:
        """The optimiser's argument with its learning rate times ``factor``."""
        if self.setup is None:
            return f"lr={self.values('lr').max(initial=0.0) * factor:.3g}"
        return f"optimizer=hl.optim.{self.setup.optimizer}({self.setup.lr * factor:.3g})"


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share seen in so many rows (Wilson 1927).

    ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``

    >>> [round(end, 3) for end in wilson(0.9, 10)]
    [0.596, 0.982]
    """
    square = Z95 * Z95 / rows
    middle = share + square / 2
    half = Z95 * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def percent(share: float) -> str:
    """0.9812 as "98.1 %", and 0.0000321 as "0.003 %"."""
    return f"{100 * share:.1f} %" if abs(share) >= 0.001 or not share else f"{100 * share:.1g} %"
