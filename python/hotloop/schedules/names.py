# SPDX-License-Identifier: Apache-2.0
"""From what a user or a file says to a schedule: names, functions, JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union, cast

from hotloop.schedules.base import FactorFunction, Schedule
from hotloop.schedules.curves import Constant, Cosine, Linear, Polynomial
from hotloop.schedules.custom import Custom, missing
from hotloop.schedules.cycles import CosineRestarts, OneCycle
from hotloop.schedules.plateau import ReduceOnPlateau
from hotloop.schedules.steps import Exponential, MultiStep, Step

_CLASSES: tuple[Any, ...] = (
    Constant, Linear, Step, MultiStep, Exponential, Polynomial, Cosine, CosineRestarts, OneCycle, ReduceOnPlateau,
)  # fmt: skip
_KINDS: dict[str, Any] = {cls.kind: cls for cls in _CLASSES}
#: Those that no name can stand for, with an example of the argument that they need.
_NEEDS_ARGUMENT = {
    "step": "every=10",
    "multi_step": "milestones=[30, 60]",
    "exponential": "gamma=0.95",
    "cosine_restarts": "first=10",
}


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
        return _by_name(schedule)
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


def _by_name(name: str) -> Schedule:
    if name in _NEEDS_ARGUMENT:
        wanted = f"hl.schedules.{_KINDS[name].__name__}({_NEEDS_ARGUMENT[name]})"
        raise ValueError(f"[schedules] {name!r} needs an argument; write schedule={wanted}")
    if name not in _KINDS:
        names = ", ".join(kind for kind in _KINDS if kind not in _NEEDS_ARGUMENT)
        raise ValueError(
            f"[schedules] unknown schedule {name!r}; allowed: {names}, or an object of hl.schedules"
        )
    return cast(Schedule, _KINDS[name]())


def from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` described; for a function, one that raises when a run needs it.

    Raises `ValueError` or `TypeError` for bad data.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind == Custom.kind:
        return Custom(missing(str(fields.get("name"))), **fields)
    if kind not in _KINDS:
        raise ValueError(f"[schedules] unknown schedule {kind!r}; allowed: {', '.join(_KINDS)}")
    return cast(Schedule, _KINDS[kind](**fields))
