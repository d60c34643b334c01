# SPDX-License-Identifier: Apache-2.0
"""The interface of every display, and when it wants to be told how far a long epoch is."""

from __future__ import annotations

import time
from collections.abc import Mapping

#: Epochs below this are not worth a look inside: the native loop runs them in one call.
LONG_EPOCH_S = 2.0
#: How often the loop comes back to Python within a longer one; it takes some 20 us.
SLICE_S = 0.25


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        """The run begins, or goes on after ``done`` epochs: ``rows`` samples per epoch."""

    def pause_s(self) -> float | None:
        """Seconds after which the epoch in hand should pause to be shown; None: never."""
        return None

    def batch(self, batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        """So many batches of the epoch in hand are done; ``metrics`` are those of the epoch so far."""

    def epoch(
        self, epoch: int, metrics: Mapping[str, float], seconds: float, best: int | None = None
    ) -> None:
        """An epoch (1-based) ended after ``seconds``, validation included; the best one so far."""

    def stop(self, summary: str) -> None:
        """The run ended; never called twice."""


class Slices:
    """How long the native loop may run before it is asked how far it is: an epoch that turns out to be long
    is paused from then on, and so are those after it."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._long = False

    def pause_s(self) -> float:
        """See `Silent.pause_s`."""
        if self._long:
            return SLICE_S
        return max(LONG_EPOCH_S - (time.perf_counter() - self._begin), SLICE_S)

    def paused(self) -> None:
        """The epoch in hand was paused."""
        self._long = True

    def ended(self, seconds: float, now: float) -> None:
        """An epoch ended ``now``, after ``seconds``."""
        self._begin = now
        self._long = seconds >= LONG_EPOCH_S
