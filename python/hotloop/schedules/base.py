# SPDX-License-Identifier: Apache-2.0
"""`Schedule`: what every schedule offers, its warm-up, and the checks of its numbers.

A schedule is a frozen dataclass that says one thing, its curve; warm-up, table and checks are the same for
all and stand here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, Union, cast

import numpy as np
import numpy.typing as npt

from hotloop.arguments import count, number

Factors = npt.NDArray[np.float64]
Warmup = Union[int, float]
FactorFunction = Callable[[int], float]

#: Two GiB of factors, and some more while they are computed. At ten microseconds a step, three quarters of an hour.
_MOST_STEPS = 2**28


class Steps(NamedTuple):
    """Where the steps of a run stand.

    after      (n_steps,) int64, of each step: how many steps behind the warm-up it is, 0 within it
    n_after    steps behind the warm-up, at least 1
    step       (n_steps,) int64: 0, 1, 2, ...
    per_epoch  steps of an epoch
    base_lr    the optimiser's learning rate, if it is known
    """

    after: npt.NDArray[np.int64]
    n_after: int
    step: npt.NDArray[np.int64]
    per_epoch: int
    base_lr: float | None

    @property
    def epoch(self) -> npt.NDArray[np.int64]:
        """(n_steps,) the epoch of each step, from 0."""
        return self.step // self.per_epoch

    @property
    def progress(self) -> Factors:
        """(n_steps,) the part of the run behind the warm-up that is done before each step, in [0, 1)."""
        return self.after / self.n_after


class Schedule:
    """What every schedule offers. ``warmup`` lifts the rate linearly to the schedule's own: step t of w
    gets ``(t+1)/w`` of it. An int counts steps, a float in (0, 1) is a fraction of the run. Schedules that
    fall after epochs (Step, MultiStep, Exponential) count these from the run's start; every other begins
    when the warm-up ends.
    """

    kind: ClassVar[str]
    warmup: Warmup

    def factors(self, n_steps: int, steps_per_epoch: int = 1, *, base_lr: float | None = None) -> Factors:
        """The factor of each step: float64 (n_steps,), finite and >= 0.

        ``steps_per_epoch`` is the unit of schedules that count epochs; ``base_lr`` the optimiser's learning
        rate, which only ``OneCycle(max_lr)`` needs. Raises `ValueError` for sizes below 1, a warm-up longer
        than the run, and unusable factors.

        >>> from hotloop.schedules import Linear
        >>> Linear().factors(4).tolist()
        [1.0, 0.75, 0.5, 0.25]
        """
        if n_steps < 1 or steps_per_epoch < 1:
            raise ValueError(
                f"[schedules] steps must be >= 1, got n_steps={n_steps}, per epoch {steps_per_epoch}"
            )
        if n_steps > _MOST_STEPS:
            raise ValueError(
                f"[schedules] the table of the run is too long, got {n_steps} steps; allowed: at most {_MOST_STEPS}; "
                "give fewer epochs, of which it makes a curve"
            )
        step = np.arange(n_steps, dtype=np.int64)
        n_warmup = self._n_warmup(n_steps)
        n_after = max(n_steps - n_warmup, 1)
        at = Steps(np.maximum(step - n_warmup, 0), n_after, step, steps_per_epoch, base_lr)
        with np.errstate(all="ignore"):  # what overflows is reported below, with its step
            curve = self._curve(at)
        ramp = np.minimum((step + 1) / n_warmup, 1.0) if n_warmup else 1.0
        return _checked_factors(self, np.asarray(curve * ramp, np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` gives an equal schedule back (a Python callable only its name)."""
        return {"kind": self.kind, **asdict(cast(Any, self))}

    def _curve(self, at: Steps) -> Factors:
        """The factors without warm-up."""
        raise NotImplementedError

    def _n_warmup(self, n_steps: int) -> int:
        if not isinstance(self.warmup, int):
            return max(1, round(self.warmup * n_steps))
        if self.warmup > n_steps:
            raise ValueError(
                f"[{type(self).__name__}] warmup is longer than the run, got {self.warmup} steps of {n_steps}; "
                f"allowed: at most {n_steps}; train longer, or give a fraction of the run, as warmup=0.05"
            )
        return self.warmup


def check(schedule: Schedule, **ranges: tuple[float, float]) -> None:
    """Check the numbers against their closed ranges and store them as Python floats; then the warm-up."""
    where = type(schedule).__name__
    for name, (low, high) in ranges.items():
        value = number(where, name, getattr(schedule, name), low=low, high=high)
        object.__setattr__(schedule, name, value)
    if isinstance(schedule.warmup, (int, np.integer)):
        object.__setattr__(schedule, "warmup", count(where, "warmup", schedule.warmup))
        return
    fraction = number(where, "warmup", schedule.warmup)
    if not 0 < fraction < 1:
        raise ValueError(
            f"[{where}] warmup must be a number of steps (an int) or a fraction of the run "
            f"(a float in (0, 1)), got {fraction}"
        )
    object.__setattr__(schedule, "warmup", fraction)


def _checked_factors(schedule: Schedule, factors: Factors) -> Factors:
    bad = np.flatnonzero(~(np.isfinite(factors) & (factors >= 0)))
    if len(bad):
        raise ValueError(
            f"[schedules] {type(schedule).__name__} gives {factors[bad[0]]} at step {bad[0]} "
            f"({len(bad)} bad of {len(factors)}); factors must be finite and >= 0"
        )
    return factors
