# SPDX-License-Identifier: Apache-2.0
"""Schedules of several hyper-parameters: of the learning rate, and of weight decay and dropout beside it.

Each is a schedule as in `hl.schedules`, a factor per step on what optimiser or layer says. What only the
learning rate can do (reduce on plateau) is refused for the others when it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Union

import numpy as np

from hotloop import schedules
from hotloop.fit.setup import run_factors
from hotloop.graph import Graph
from hotloop.optim import Optimizer
from hotloop.schedules import Constant, FactorFunction, Factors, ReduceOnPlateau, Schedule

_CONSTANT = Constant()
NAMES = ("lr", "weight_decay", "dropout")


@dataclass(frozen=True)
class HyperSchedules:
    """A schedule for each hyper-parameter that has one; made by `resolve` from a mapping."""

    kind: ClassVar[str] = "mapping"
    lr: Schedule = _CONSTANT
    weight_decay: Schedule | None = None
    dropout: Schedule | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` gives an equal object back."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind, **{name: s.to_dict() for name, s in given.items() if s is not None}}


class HyperFactors(NamedTuple):
    """Factors of each step of a run, float64 (steps,); None where all are 1."""

    lr: Factors | None = None
    weight_decay: Factors | None = None
    dropout: Factors | None = None


AnySchedule = Union[Schedule, HyperSchedules]
#: What `resolve` takes.
OneSchedule = Union[Schedule, FactorFunction, str, None]
ScheduleLike = Union[OneSchedule, HyperSchedules, Mapping[str, OneSchedule]]


def resolve(schedule: Any) -> AnySchedule:
    """A schedule as `schedules.resolve` takes it, or a mapping of such for "lr", "weight_decay" and "dropout".

    Raises `ValueError` for other names and for schedules that only a learning rate can have.

    >>> resolve({"weight_decay": "cosine", "dropout": schedules.Linear(0.0, 1.0)}).lr
    Constant(warmup=0)
    """
    if isinstance(schedule, HyperSchedules):
        return schedule
    if not isinstance(schedule, Mapping):
        return schedules.resolve(schedule)
    unknown = [name for name in schedule if name not in NAMES]
    if unknown:
        raise ValueError(
            f"[schedule] nothing is scheduled under the name {unknown[0]!r}; allowed: {', '.join(NAMES)}"
        )
    given = {name: schedules.resolve(value) for name, value in schedule.items() if value is not None}
    for name, value in given.items():
        if name == "lr":
            continue
        if isinstance(value, ReduceOnPlateau):
            raise ValueError(
                f"[schedule] ReduceOnPlateau is for the learning rate, got it for {name!r}; use Step or Linear"
            )
        if getattr(value, "max_lr", None) is not None:
            raise ValueError(
                f"[schedule] {name!r}: max_lr is a learning rate; leave it out: the peak is then what the "
                "optimizer or layer says"
            )
    return HyperSchedules(**given)


def from_dict(data: Mapping[str, Any]) -> AnySchedule:
    """What `to_dict` of either kind described. Raises `ValueError` or `TypeError` for bad data."""
    if data.get("kind") != HyperSchedules.kind:
        return schedules.from_dict(data)
    parts = {name: schedules.from_dict(part) for name, part in data.items() if name != "kind"}
    return HyperSchedules(**parts)


def lr_schedule(schedule: AnySchedule) -> Schedule:
    """The one of the learning rate."""
    return schedule.lr if isinstance(schedule, HyperSchedules) else schedule


def factors_of(
    schedule: AnySchedule, optimizer: Optimizer, graph: Graph, epochs: int, steps_per_epoch: int,
    accumulate: int = 1,
) -> HyperFactors:  # fmt: skip
    """The factors of each batch of a run; the batches of an update share theirs.

    Raises `ValueError` for a factor on nothing (no weight decay, no dropout layer), and for one that takes a
    layer's dropout out of [0, 1).
    """
    lr = run_factors(lr_schedule(schedule), optimizer.lr, epochs, steps_per_epoch, accumulate)
    if not isinstance(schedule, HyperSchedules):
        return HyperFactors(lr)
    decay = dropout = None
    if schedule.weight_decay is not None:
        if optimizer.weight_decay == 0:
            raise ValueError(
                "[schedule] a weight_decay schedule multiplies the optimizer's weight_decay, which is 0; "
                "set it there, or leave the schedule out"
            )
        decay = run_factors(
            schedule.weight_decay, optimizer.weight_decay, epochs, steps_per_epoch, accumulate
        )
    if schedule.dropout is not None:
        dropout = run_factors(schedule.dropout, 1.0, epochs, steps_per_epoch, accumulate)
        _check_dropout(dropout, graph)
    return HyperFactors(lr, decay, dropout)


def _check_dropout(factors: Factors | None, graph: Graph) -> None:
    rates = [node.attr["p"] for node in graph.nodes if node.op == "dropout"]
    if not rates:
        raise ValueError("[schedule] a dropout schedule needs a Dropout layer with p > 0; the model has none")
    if factors is None:
        return
    p, step = max(rates), int(np.argmax(factors))
    if p * factors[step] >= 1:
        raise ValueError(
            f"[schedule] dropout becomes {p:g} * {factors[step]:g} = {p * factors[step]:g} at step {step}; it must "
            "stay in [0, 1): use factors of at most 1, or a smaller p"
        )
