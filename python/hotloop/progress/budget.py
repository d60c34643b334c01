# SPDX-License-Identifier: Apache-2.0
"""When a display may draw: not too often, and never for more than its share of the run's time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Of the run's time, everything that is shown together.
SHARE = 0.01


class Budget:
    """Drawings are ``every_s`` apart, and what they took with the next one (which takes as long as the last)
    stays within ``grace_s`` and SHARE of the time since the start.

    ``cost_s`` is what a drawing is expected to take before there was one.
    """

    def __init__(self, *, every_s: float, grace_s: float = 0.0, cost_s: float = 0.0) -> None:
        self.begin = time.perf_counter()
        self.spent_s = 0.0
        self._every_s, self._grace_s, self._cost_s = every_s, grace_s, cost_s
        self._last = self.begin

    def affords(self, now: float) -> bool:
        """Whether one more drawing stays within the share."""
        return self.spent_s + self._cost_s <= self._grace_s + SHARE * (now - self.begin)

    def due(self, now: float) -> bool:
        """Whether to draw at this time of `time.perf_counter`."""
        return now - self._last >= self._every_s and self.affords(now)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Around a drawing: takes its time."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._last = time.perf_counter()
            self._cost_s = self._last - begin
            self.spent_s += self._cost_s
