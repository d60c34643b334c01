# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's optimisers in terms of ours, and the step parameters of each batch.

Three things differ. scikit-learn adds ``alpha W / (weights of the batch's rows)`` to a gradient: a weight decay
of each batch. Its Adam divides by ``sqrt(v) + eps`` before the bias is corrected (Kingma and Ba's eps-hat): the
correction goes into the rate. And our gradient is c times its own (objective.py): with ``g' = c g``, SGD at
``lr / c`` and ``decay c``, and Adam at ``eps c`` and ``decay c``, take the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import optim, schedules
from hotloop.compile.plan import OptimizerSpec
from hotloop.fit.setup import run_factors

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class _AdamHat(optim.Adam):
    """Adam whose rates hold the correction of the second moment."""

    def spec(self) -> OptimizerSpec:
        return self._spec

    @cached_property
    def _spec(self) -> OptimizerSpec:  # asked for at every epoch
        return replace(super().spec(), corrects_root=False)


def make_optimizer(estimator: Any, scale: float) -> optim.Optimizer:
    """The optimiser of an estimator's solver, for gradients that are ``scale`` times scikit-learn's."""
    est = estimator
    if est.solver == "sgd":
        # scikit-learn allows a momentum of 1; below it in double, and 1 again in the kernel's float32
        momentum = min(float(est.momentum), math.nextafter(1.0, 0.0))
        nesterov = bool(est.nesterovs_momentum and momentum)
        return optim.SGD(est.learning_rate_init, momentum, nesterov=nesterov, decay="weights")
    betas, eps = (est.beta_1, est.beta_2), est.epsilon * scale
    if est.solver == "adamw":
        return optim.AdamW(est.learning_rate_init, betas, eps=eps, weight_decay=est.alpha, decay="weights")
    return _AdamHat(est.learning_rate_init, betas, eps=eps, decay="weights")


class Rates:
    """The rates of one solver: they live as long as its moments do."""

    def __init__(self, estimator: Any, scale: float) -> None:
        self._scale = scale
        self.learning_rate = float(estimator.learning_rate_init)
        self.updates = 0  # so far
        self._factors: Doubles | None = None  # of the schedule, one for each update
        self._plateau: Any = None

    def begin(self, est: Any, n_batches: int) -> None:
        """At the start of a fit with so many batches an epoch: take up the schedule."""
        schedule = schedules.resolve(est.schedule)
        lr = float(est.learning_rate_init)
        self._factors = run_factors(schedule, lr, est.max_iter, n_batches)
        if self._plateau is None and isinstance(schedule, schedules.ReduceOnPlateau):
            self._plateau = schedule.tracker(lr, maximize=est.early_stopping)

    def next(self, est: Any, n_batches: int) -> Doubles:
        """The rates of the next batches, (batches,)."""
        lr = np.full(n_batches, self.learning_rate)
        steps = np.arange(self.updates, self.updates + n_batches)
        if self._factors is not None:
            lr *= self._factors[np.minimum(steps, len(self._factors) - 1)]
        if self._plateau is not None:
            lr *= self._plateau.factor
        if est.solver == "adam":
            lr *= np.sqrt(1.0 - est.beta_2 ** (steps + 1.0))
        elif est.solver == "sgd":
            lr /= self._scale
        return lr

    def decays(self, est: Any, batch_weights: Doubles) -> Doubles:
        """The weight decay of batches whose row weights have these sums, (batches,)."""
        if est.solver == "adamw":
            return np.full(len(batch_weights), float(est.alpha))
        decay = np.zeros(len(batch_weights))
        found: Doubles = np.divide(est.alpha * self._scale, batch_weights, out=decay, where=batch_weights > 0)
        return found

    def epoch_end(self, est: Any, samples: int, monitored: float) -> float:
        """After an epoch, with all rows seen so far: the old rate by the new one."""
        if self._plateau is not None:
            self._plateau.update(monitored)
        if est.solver != "sgd" or est.learning_rate != "invscaling":
            return 1.0
        return self._set(float(est.learning_rate_init) / (samples + 1) ** est.power_t)

    def no_improvement(self, est: Any, message: str, say: Callable[[str], None]) -> float | None:
        """What follows when nothing improves: None to stop, else the old rate by the new one."""
        if est.solver != "sgd" or est.learning_rate != "adaptive":
            say(f"{message} Stopping.")
            return None
        if self.learning_rate <= 1e-6:
            say(f"{message} Learning rate too small. Stopping.")
            return None
        ratio = self._set(self.learning_rate / 5.0)
        say(f"{message} Setting learning rate to {self.learning_rate:f}")
        return ratio

    def _set(self, rate: float) -> float:
        ratio = self.learning_rate / rate
        self.learning_rate = rate
        return ratio
