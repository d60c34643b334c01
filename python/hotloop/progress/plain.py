# SPDX-License-Identifier: Apache-2.0
"""Lines for a log: enough to follow a run, never one for each of ten thousand epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import IO

from hotloop.progress.base import Metrics, Silent, Slices
from hotloop.progress.board import Board
from hotloop.progress.budget import Budget
from hotloop.progress.text import epoch_line

#: A line is due after this part of the epochs, or after so many seconds, or after this part of the time so
#: far: a log grows with the logarithm of a long run's time.
_PART, _SECONDS, _PART_OF_TIME = 1 / 20, 1.0, 1 / 100
#: Within an epoch lines say little; they show that it lives.
_WITHIN_S = 10.0
#: Some forty lines of a run that takes no time at all.
_GRACE_S = 1e-3


class Plain(Silent):
    """Lines on a text stream: the first and the last epoch, and between them what the constants say."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        self._board = Board(epochs, rows, done, last=1)
        self._budget = Budget(every_s=0.0, grace_s=_GRACE_S)
        self._slices = Slices()
        self._printed = done  # the last epoch with a line
        self._next_epoch = done + 1  # which is due whenever it comes ...
        self._next_time = self._last = self._budget.begin  # ... or whichever comes after this
        self._first = True

    def pause_s(self) -> float | None:
        return self._slices.pause_s()

    def batch(self, batch: int, batches: int, metrics: Metrics) -> None:
        board, now = self._board, time.perf_counter()
        if self._slices.due() and now - self._last >= max(_WITHIN_S, self._interval(now)):
            board.within(batch, batches, metrics())
            loss = {name: value for name, value in board.running.items() if name == "loss"}
            rate = board.fraction * board.rows / max(now - board.epoch_begin, 1e-9)
            line = epoch_line(board.epoch + 1, board.epochs, loss, rate)
            self._print(f"{line}  {board.fraction:.0%} of the epoch  {board.left()} left")

    def epoch(
        self, epoch: int, metrics: Mapping[str, float], seconds: float, best: int | None = None
    ) -> None:
        now = time.perf_counter()
        self._slices.ended(seconds, now)
        self._board.add(epoch, metrics, seconds, best, now)
        due = epoch >= self._next_epoch or now >= self._next_time
        if due and (self._first or epoch == self._board.epochs or now >= self._budget.next):
            self._print_epoch()

    def stop(self, summary: str) -> None:
        if self._board.epoch > self._printed:
            self._print_epoch()
        self._print(summary)

    def _interval(self, now: float) -> float:
        return max(_SECONDS, _PART_OF_TIME * (now - self._budget.begin))

    def _print_epoch(self) -> None:
        board, row = self._board, self._board.last[-1]
        line = epoch_line(row[0], board.epochs, row[1], board.rate_of(row))
        self._print(f"{line}  {board.left()} left{'  best' if board.is_best(row) else ''}")
        self._printed, self._first = row[0], False
        self._next_epoch = min(row[0] + math.ceil(_PART * board.epochs), board.epochs)

    def _print(self, text: str) -> None:
        with self._budget.drawing():
            print(text, file=self._stream, flush=True)
        self._last = time.perf_counter()
        self._next_time = self._last + self._interval(self._last)
