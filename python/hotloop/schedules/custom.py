# SPDX-License-Identifier: Apache-2.0
"""A schedule that is a Python function of the step."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from hotloop.arguments import function_name, number
from hotloop.schedules.base import FactorFunction, Factors, Schedule, Steps, Warmup, check


@dataclass(frozen=True)
class Custom(Schedule):
    """A Python function of the step, called for every step before the run: ``function(t) -> factor``. Within a
    warm-up t is 0, and it counts from there.

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
        check(self)
        if not callable(self.function):
            raise TypeError(
                f"[Custom] function must be callable as function(step), got {self.function!r:.80}"
            )
        if not self.name:
            object.__setattr__(self, "name", function_name(self.function))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "warmup": self.warmup}

    def _curve(self, at: Steps) -> Factors:
        values = [self.function(int(step)) for step in at.after]
        named = zip(at.after, values, strict=True)
        return np.array([number("schedules", f"{self.name}({t})", value) for t, value in named])


def missing(name: str) -> FactorFunction:
    """What stands for a function of which a file knows the name only: it raises when a run needs it."""

    def called(step: int) -> float:
        raise RuntimeError(
            f"[schedules] the file names the schedule function {name} only; give it as schedule="
        )

    return called
