# SPDX-License-Identifier: Apache-2.0
"""When a display may draw: not too often, and never for more than its share of the run's time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Of the run's time, for all drawings together; half of the hundredth that a display may take, because
#: counting epochs takes a part too where they are short.
SHARE = 0.005


class Budget:
    """Drawings are ``every_s`` apart, and what they took with the next one (which takes as long as the last)
    stays within ``grace_s`` and SHARE of the time since the start.

    ``next`` is the time of `time.perf_counter` from which on one more is due, ``begin`` that of the start.
    ``cost_s`` is what a drawing is expected to take before there was one.
    """

    def __init__(self, *, every_s: float, grace_s: float = 0.0, cost_s: float = 0.0) -> None:
        self.begin = time.perf_counter()
        self.spent_s = 0.0
        self._every_s, self._grace_s = every_s, grace_s
        self._schedule(self.begin, cost_s)

    def _schedule(self, last: float, cost_s: float) -> None:
        affordable = self.begin + (self.spent_s + cost_s - self._grace_s) / SHARE
        self.next = max(last + self._every_s, affordable)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Around a drawing: takes its time."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self.spent_s += end - begin
            self._schedule(end, end - begin)
