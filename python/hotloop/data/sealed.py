# SPDX-License-Identifier: Apache-2.0
"""The parts of a split, and the seal of the last one: every look at the test rows is counted.

The list of looks is shared with the split's `SplitInfo`, so that a report and a model file know of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from hotloop.data.rows import n_rows
from hotloop.errors import HotloopWarning


class Part(NamedTuple):
    """Rows of the data: ``X, y = part``, or ``part.X``; inputs and targets of the kind that was given."""

    X: Any
    y: Any


class SealedData:
    """The test rows, behind a counter. What is chosen by looking at test results is fitted to them, so that
    every look is counted: `open` it, unpack it, or hand it to ``Trainer.evaluate``. From the second time
    on, a `HotloopWarning` says how often.

    >>> sealed = SealedData(np.zeros((2, 3)), np.zeros(2))
    >>> X, y = sealed.open("final evaluation")
    >>> sealed
    SealedData(2 rows, opened 1 time: final evaluation)
    """

    def __init__(self, X: Any, y: Any) -> None:
        self._part = Part(X, y)
        #: The purpose of each opening, one list for all who ask; see `SplitInfo.looks`.
        self.looks: list[str] = []

    def open(self, purpose: str = "unnamed") -> Part:
        """The rows themselves; the opening and its purpose go into `log`."""
        self.looks.append(purpose)
        if self.openings > 1:
            warnings.warn(
                f"[split] the test data was opened {self.openings} times ({', '.join(self.looks)}); results chosen "
                "among several looks are optimistic",
                HotloopWarning,
                stacklevel=2,
            )
        return self._part

    @property
    def openings(self) -> int:
        """How often the data was looked at."""
        return len(self.looks)

    @property
    def log(self) -> tuple[str, ...]:
        """The purpose of each opening."""
        return tuple(self.looks)

    def __len__(self) -> int:
        return n_rows(self._part.X)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.open("unpacked"))

    def __getattr__(self, name: str) -> Any:
        if name in ("X", "y"):
            raise AttributeError(
                f"[split] test.{name} is sealed; X, y = test.open('purpose'), which is counted"
            )
        raise AttributeError(f"'SealedData' object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"SealedData({len(self)} rows, {looks_text(self.looks)})"


def looks_text(log: list[str]) -> str:
    """How often the test rows were opened, and what for.

    >>> looks_text(["final report"])
    'opened 1 time: final report'
    """
    times = "1 time" if len(log) == 1 else f"{len(log)} times"
    return f"opened {times}{': ' if log else ''}{', '.join(log)}"
