# SPDX-License-Identifier: Apache-2.0
"""What the live tables share: a board that is kept up to date, and drawn whenever the budget allows it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hotloop.progress.base import Metrics, Silent, Slices
from hotloop.progress.board import Board
from hotloop.progress.budget import Budget


class LiveBoard(Silent):
    """A display that draws its whole board anew. Subclasses draw, and say how it begins and ends."""

    _board: Board
    _budget: Budget

    def _begin(self, board: Board, budget: Budget) -> None:
        self._board, self._budget, self._slices = board, budget, Slices()

    def pause_s(self) -> float | None:
        return self._slices.pause_s()

    def batch(self, batch: int, batches: int, metrics: Metrics) -> None:
        if self._slices.due() and time.perf_counter() >= self._budget.next:
            self._board.within(batch, batches, metrics())
            self._draw_in_time()

    def epoch(
        self, epoch: int, metrics: Mapping[str, float], seconds: float, best: int | None = None
    ) -> None:
        now = time.perf_counter()
        self._slices.ended(seconds, now)
        self._board.add(epoch, metrics, seconds, best, now)
        if now >= self._budget.next:
            self._draw_in_time()

    def _draw_in_time(self) -> None:
        with self._budget.drawing():
            self._draw()

    def _draw(self) -> None:
        """Draw the board as it stands."""
        raise NotImplementedError
