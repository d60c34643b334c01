# SPDX-License-Identifier: Apache-2.0
"""What there is to see of a run: the last epochs, the best one, how far it is, how long it will take.

Plain data, filled by the loop and read by the displays, so that all of them say the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

from hotloop.progress.text import duration, number, quantity

#: One epoch: its number (1-based), its metrics, its seconds. Not a class, because one is made for every epoch.
Row = tuple[int, Mapping[str, float], float]


class Board:
    """The state of a run. ``rows`` samples an epoch; it began after ``done`` epochs."""

    def __init__(self, epochs: int, rows: int, done: int = 0, *, last: int = 8) -> None:
        self.epochs, self.rows, self.done = epochs, rows, done
        self.begin = time.perf_counter()
        self.last: deque[Row] = deque(maxlen=last)
        self.best: Row | None = None
        self.epoch = done  # whole epochs
        self.batch, self.batches = 0, 0  # of the next one, if it is being shown
        self.running: Mapping[str, float] = {}  # its metrics so far
        self.epoch_begin = self.begin

    def add(
        self, epoch: int, metrics: Mapping[str, float], seconds: float, best: int | None, now: float
    ) -> None:
        """One more whole epoch, that ended ``now``; ``best`` is the best so far."""
        row = (epoch, metrics, seconds)
        self.last.append(row)
        if best == epoch:
            self.best = row
        self.epoch, self.batch, self.epoch_begin = epoch, 0, now

    def within(self, batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        """The epoch in hand has done so many of its batches."""
        self.batch, self.batches, self.running = batch, batches, metrics

    # --- as text and numbers ---

    @property
    def fraction(self) -> float:
        """Of the epoch in hand, 0 to 1."""
        return self.batch / self.batches if self.batches else 0.0

    def left(self) -> str:
        """The time that the rest takes if it goes on like this; "" before anything is known."""
        gone = self.epoch + self.fraction - self.done
        if gone <= 0:
            return ""
        return duration(
            (time.perf_counter() - self.begin) / gone * (self.epochs - self.epoch - self.fraction)
        )

    def elapsed(self) -> str:
        return duration(time.perf_counter() - self.begin)

    def rate(self) -> str:
        """Samples per second, of the epoch in hand or the last one."""
        if self.batch:
            seconds = max(time.perf_counter() - self.epoch_begin, 1e-9)
            return quantity(self.fraction * self.rows / seconds)
        return quantity(self.rate_of(self.last[-1])) if self.last else "-"

    def status(self) -> str:
        """``12.3k samples/s · 4.2s · 8.1s left · best epoch 9``"""
        left, best = self.left(), self.best
        parts = [f"{self.rate()} samples/s", self.elapsed()]
        if left and self.epoch < self.epochs:
            parts.append(f"{left} left")
        if best is not None:
            parts.append(f"best epoch {best[0]}")
        return " · ".join(parts)

    def columns(self) -> list[str]:
        """The names of the metrics, in the order of the history."""
        return list(self.last[-1][1]) if self.last else []

    def shown(self) -> list[Row]:
        """The last rows, and before them the best one if it is older."""
        rows = list(self.last)
        if self.best is not None and rows and self.best[0] < rows[0][0]:
            return [self.best, *rows[1:]]
        return rows

    def cells(self, row: Row, columns: Sequence[str]) -> list[str]:
        """A row as text: epoch, metrics, samples per second."""
        epoch, metrics, _ = row
        values = [number(name, metrics[name]) if name in metrics else "" for name in columns]
        return [str(epoch), *values, quantity(self.rate_of(row))]

    def rate_of(self, row: Row) -> float:
        """Samples per second of an epoch."""
        return self.rows / max(row[2], 1e-9)

    def is_best(self, row: Row) -> bool:
        """Whether it is the best epoch so far."""
        return self.best is not None and row[0] == self.best[0]
