# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as data: one factor per optimiser step, written as a table before the run.

Step t uses ``lr * factors[t]``, t counted from 0. Linear, Cosine and OneCycle span the run; Step and
Exponential count epochs. Values equal torch's at the same step (LinearLR, CosineAnnealingLR and OneCycleLR
stepped once a batch with the run's length, StepLR and ExponentialLR once an epoch). The optimiser is not
known here, so that one schedule serves any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Union, cast

import numpy as np
import numpy.typing as npt

from hotloop.arguments import choice, count, function_name, number

Factors = npt.NDArray[np.float64]
Warmup = Union[int, float]
FactorFunction = Callable[[int], float]


class _Steps(NamedTuple):
    """Where the steps of a run stand: step ``t`` of ``n`` after the warm-up, in the run's ``epoch``."""

    t: npt.NDArray[np.int64]
    n: int
    epoch: npt.NDArray[np.int64]
    base_lr: float | None


class Schedule:
    """What every schedule offers. ``warmup`` lifts the rate linearly to the schedule's own: step t of w
    gets ``(t+1)/w`` of it. An int counts steps, a float in (0, 1) is a fraction of the run. Schedules that
    span the run share out the steps after the warm-up; those that count epochs count from the run's start.
    """

    kind: ClassVar[str]
    warmup: Warmup

    def factors(self, n_steps: int, steps_per_epoch: int = 1, *, base_lr: float | None = None) -> Factors:
        """The factor of each step: float64 (n_steps,), finite and >= 0.

        ``steps_per_epoch`` is the unit of Step and Exponential; ``base_lr`` the optimiser's learning rate,
        which only ``OneCycle(max_lr)`` needs. Raises `ValueError` for sizes below 1 and unusable factors.

        >>> Linear().factors(4).tolist()
        [1.0, 0.75, 0.5, 0.25]
        """
        if n_steps < 1 or steps_per_epoch < 1:
            raise ValueError(
                f"[schedules] steps must be >= 1, got n_steps={n_steps}, per epoch {steps_per_epoch}"
            )
        step = np.arange(n_steps, dtype=np.int64)
        n_warmup = self._n_warmup(n_steps)
        after = np.maximum(step - n_warmup, 0)
        body = self._curve(_Steps(after, max(n_steps - n_warmup, 1), step // steps_per_epoch, base_lr))
        ramp = np.minimum((step + 1) / n_warmup, 1.0) if n_warmup else 1.0
        return _checked_factors(self, np.asarray(body * ramp, np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` gives an equal schedule back (a Python callable only its name)."""
        return {"kind": self.kind, **asdict(cast(Any, self))}

    def _curve(self, at: _Steps) -> Factors:
        """The factors without warm-up."""
        raise NotImplementedError

    def _n_warmup(self, n_steps: int) -> int:
        if isinstance(self.warmup, int):
            return self.warmup
        return max(1, round(self.warmup * n_steps))


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
        _check_warmup(self)

    def _curve(self, at: _Steps) -> Factors:
        return np.ones(len(at.t))


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
        _check(self, start_factor=(0, math.inf), end_factor=(0, math.inf))

    def _curve(self, at: _Steps) -> Factors:
        return self.start_factor + (self.end_factor - self.start_factor) * (at.t / at.n)


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
        _check(self, gamma=(0, math.inf))
        object.__setattr__(self, "every", count("Step", "every", self.every, low=1))

    def _curve(self, at: _Steps) -> Factors:
        return cast(Factors, np.float64(self.gamma) ** (at.epoch // self.every))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Times ``gamma`` after every epoch: ``gamma ** epoch`` (torch's ExponentialLR).

    >>> Exponential(0.5).factors(4, 2).tolist()
    [1.0, 1.0, 0.5, 0.5]
    """

    kind: ClassVar[str] = "exponential"
    gamma: float
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        _check(self, gamma=(0, math.inf))

    def _curve(self, at: _Steps) -> Factors:
        return cast(Factors, np.float64(self.gamma) ** at.epoch)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to ``final``: ``final + (1 - final) (1 + cos(pi t/n)) / 2`` (Loshchilov and
    Hutter 2017, torch's CosineAnnealingLR).

    >>> Cosine().factors(2).round(6).tolist()
    [1.0, 0.5]
    """

    kind: ClassVar[str] = "cosine"
    final: float = 0.0
    _: KW_ONLY
    warmup: Warmup = 0

    def __post_init__(self) -> None:
        _check(self, final=(0, math.inf))

    def _curve(self, at: _Steps) -> Factors:
        return self.final + (1 - self.final) * (1 + np.cos(np.pi * at.t / at.n)) / 2


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
        _check(self, pct_start=(0, 1), div_factor=(1e-30, math.inf), final_div_factor=(1e-30, math.inf))
        if self.max_lr is not None:
            _check(self, max_lr=(0, math.inf))
        choice("OneCycle", "anneal", self.anneal, ("cos", "linear"))

    def _curve(self, at: _Steps) -> Factors:
        peak = self._peak(at.base_lr)
        low, last = peak / self.div_factor, peak / self.div_factor / self.final_div_factor
        # The peak stands at step pct_start * n - 1, the end at step n - 1.
        turn, end = self.pct_start * at.n - 1, at.n - 1.0
        up = self._between(low, peak, at.t / turn if turn else np.ones(len(at.t)))
        down = self._between(peak, last, (at.t - turn) / (end - turn) if end > turn else np.ones(len(at.t)))
        return np.where(at.t <= turn, up, down)

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
        _check(self, factor=(0, 1), threshold=(0, math.inf), min_lr=(0, math.inf))
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

    def _curve(self, at: _Steps) -> Factors:
        return np.ones(len(at.t))


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


@dataclass(frozen=True)
class Custom(Schedule):
    """A Python function of the step, called for every step before the run: ``function(t) -> factor``.

    Files keep its name only. `resolve` wraps plain functions in this.

    >>> Custom(lambda step: 0.5**step).factors(3).tolist()
    [1.0, 0.5, 0.25]
    """

    kind: ClassVar[str] = "custom"
    function: FactorFunction
    _: KW_ONLY
    warmup: Warmup = 0
    name: str = ""

    def __post_init__(self) -> None:
        _check_warmup(self)
        if not callable(self.function):
            raise TypeError(
                f"[Custom] function must be callable as function(step), got {self.function!r:.80}"
            )
        if not self.name:
            object.__setattr__(self, "name", function_name(self.function))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "warmup": self.warmup}

    def _curve(self, at: _Steps) -> Factors:
        values = [self.function(int(step)) for step in at.t]
        named = zip(at.t, values, strict=True)
        return np.array([number("schedules", f"{self.name}({t})", value) for t, value in named])


_KINDS: dict[str, Any] = {
    cls.kind: cls for cls in (Constant, Linear, Step, Exponential, Cosine, OneCycle, ReduceOnPlateau)
}
_NEEDS_ARGUMENT = ("step", "exponential")


def resolve(schedule: Union[Schedule, FactorFunction, str, None]) -> Schedule:
    """The schedule itself; `Constant` for None; `Custom` for a function; that of a name with its defaults.

    Raises `ValueError` for other names, `TypeError` for other objects.

    >>> resolve("cosine")
    Cosine(final=0.0, warmup=0)
    """
    if schedule is None:
        return Constant()
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        names = [name for name in _KINDS if name not in _NEEDS_ARGUMENT]
        if schedule in names:
            return cast(Schedule, _KINDS[schedule]())
        raise ValueError(f"[schedules] unknown schedule {schedule!r}; allowed: {', '.join(names)}")
    if isinstance(schedule, type):
        raise TypeError(
            f"[schedules] got the class {schedule.__name__}; write hl.schedules.{schedule.__name__}(...)"
        )
    if callable(schedule):
        return Custom(schedule)
    raise TypeError(
        f"[schedules] a schedule is an object from hl.schedules, a function step -> factor, a name or None, "
        f"got {schedule!r:.80}"
    )


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` described; for a function, one that raises when a run needs it.

    Raises `ValueError` or `TypeError` for bad data.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind == Custom.kind:
        return Custom(_missing(str(fields.get("name"))), **fields)
    if kind not in _KINDS:
        raise ValueError(f"[schedules] unknown schedule {kind!r}; allowed: {', '.join(_KINDS)}")
    return cast(Schedule, _KINDS[kind](**fields))


def _missing(name: str) -> FactorFunction:
    def missing(step: int) -> float:
        raise RuntimeError(
            f"[schedules] the file names the schedule function {name} only; give it as schedule="
        )

    return missing


# --- checks ---------------------------------------------------------------------------------------


def _check(schedule: Schedule, **ranges: tuple[float, float]) -> None:
    """Check the numbers against their closed ranges and store them as Python floats; then the warm-up."""
    where = type(schedule).__name__
    for name, (low, high) in ranges.items():
        value = number(where, name, getattr(schedule, name), low=low, high=high)
        object.__setattr__(schedule, name, value)
    _check_warmup(schedule)


def _check_warmup(schedule: Schedule) -> None:
    where = type(schedule).__name__
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
