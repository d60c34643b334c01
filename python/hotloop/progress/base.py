# SPDX-License-Identifier: Apache-2.0
"""The interface of every display, and when it wants to be told how far a long epoch is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Metrics = Callable[[], Mapping[str, float]]
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

    def batch(self, batch: int, batches: int, metrics: Metrics) -> None:
        """The epoch in hand was paused, for whatever reason, after so many batches; ``metrics`` gives those of
        the epoch so far."""

    def epoch(
        self, epoch: int, metrics: Mapping[str, float], seconds: float, best: int | None = None
    ) -> None:
        """An epoch (1-based) ended after ``seconds``, validation included; the best one so far."""

    def stop(self, summary: str) -> None:
        """The run ended; never called twice."""


class Slices:
    """When the native loop is asked how far it is: an epoch that turns out to be long is paused from then on,
    and so are those after it."""

    def __init__(self) -> None:
        self._next = time.perf_counter() + LONG_EPOCH_S
        self._long = False

    def pause_s(self) -> float:
        """See `Silent.pause_s`."""
        return max(self._next - time.perf_counter(), 0.0)

    def due(self) -> bool:
        """Whether this pause is one of ours; the next one comes later."""
        now = time.perf_counter()
        if now < self._next:
            return False
        self._long = True
        self._next = now + SLICE_S
        return True

    def ended(self, seconds: float, now: float) -> None:
        """An epoch ended ``now``, after ``seconds``."""
        self._long = self._long and seconds >= LONG_EPOCH_S
        self._next = now + (SLICE_S if self._long else LONG_EPOCH_S)
