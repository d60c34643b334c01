# SPDX-License-Identifier: Apache-2.0
"""The live table on a terminal, drawn by rich: the last epochs, the best one, and how far the run is.

Nothing is drawn before the run has lasted long enough to pay for it, and there is no thread that draws: the
loop comes by at the end of each epoch, and four times a second within a long one.
"""

from __future__ import annotations

import time
from io import StringIO
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hotloop.progress.board import Board
from hotloop.progress.budget import Budget
from hotloop.progress.live import LiveBoard

#: Ten times a second is as fast as anybody reads; lines that the table takes beside its rows.
_EVERY_S, _OTHER_LINES, _ROWS = 0.1, 6, 8
_BAR_WIDTH = 28

_frame_s: float | None = None  # what a frame takes, measured once per process


def can_redraw(stream: IO[str]) -> bool:
    """Whether lines can be drawn over on this terminal."""
    return not Console(file=stream).is_dumb_terminal


class Terminal(LiveBoard):
    """A table that is drawn over in place, and stays with the run's last state."""

    def __init__(self, stream: IO[str]) -> None:
        global _frame_s
        self._console = Console(file=stream, highlight=False)
        self._live: Live | None = None
        if _frame_s is None:
            _frame_s = _measured_frame()

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        fitting = max(self._console.height - _OTHER_LINES, 2)
        budget = Budget(every_s=_EVERY_S, cost_s=_frame_s or 0.0)
        self._begin(Board(epochs, rows, done, last=min(fitting, _ROWS)), budget)

    def stop(self, summary: str) -> None:
        if self._live is not None:
            self._live.update(table(self._board, self._console.width))
            self._live.stop()
        elif self._board.last:
            self._console.print(table(self._board, self._console.width))
        self._console.print(summary, markup=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        self._live.update(frame(self._board, self._console.width), refresh=True)


def frame(board: Board, width: int) -> Group:
    """Everything: the table, the bar of the run, and that of the epoch in hand where it is a long one."""
    bars = Table.grid(padding=(0, 1))
    whole = board.epoch + board.fraction
    bars.add_row(
        Text(f"epoch {board.epoch}/{board.epochs}"),
        ProgressBar(total=board.epochs, completed=whole, width=min(_BAR_WIDTH, width // 3)),
        Text(board.status(), style="dim", overflow="ellipsis", no_wrap=True),
    )
    if board.batch:
        loss = board.running.get("loss")
        bars.add_row(
            Text(f"batch {board.batch}/{board.batches}", style="dim"),
            ProgressBar(total=board.batches, completed=board.batch, width=min(_BAR_WIDTH, width // 3)),
            Text("" if loss is None else f"loss {loss:.4g}", style="dim"),
        )
    return Group(table(board, width), bars) if board.last else Group(bars)


def table(board: Board, width: int) -> Table:
    """The last epochs and the best one, which is marked, in as many columns as fit."""
    columns, rows = board.columns(), board.shown()
    cells = [board.cells(row, columns) for row in rows]
    titles = ["epoch", *columns, "samples/s"]
    widths = [max(map(len, column)) + 3 for column in zip(titles, *cells, strict=True)]
    keep = list(range(len(titles)))
    while len(keep) > 2 and sum(widths[i] for i in keep) + 2 > width:
        keep.pop(-2 if len(keep) > 3 and len(titles) - 1 in keep else -1)
    result = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    result.add_column("", width=1, no_wrap=True)
    for i in keep:
        result.add_column(Text(titles[i]), justify="right", no_wrap=True)
    for row, texts in zip(rows, cells, strict=True):
        best = board.is_best(row)
        mark = Text("*" if best else "", style="green")
        result.add_row(mark, *(Text(texts[i]) for i in keep), style="green" if best else "")
    return result


def _measured_frame() -> float:
    """Seconds that the first frame takes once rich has loaded what it needs: the second of two that nobody
    sees."""
    board = Board(10, 1000, last=_ROWS)
    for epoch in range(1, _ROWS + 1):
        metrics = {"loss": 0.1, "accuracy": 0.9, "val_loss": 0.1, "val_accuracy": 0.9}
        board.add(epoch, metrics, 1.0, epoch, time.perf_counter())
    console = Console(file=StringIO(), force_terminal=True, width=100, legacy_windows=False)
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        with Live(console=console, auto_refresh=False, transient=False) as live:
            live.update(frame(board, 100), refresh=True)
            seconds = time.perf_counter() - begin
    return seconds
