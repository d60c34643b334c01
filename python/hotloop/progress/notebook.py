# SPDX-License-Identifier: Apache-2.0
"""The live table in a notebook: one output of the cell, replaced as the run goes on.

HTML of our own by IPython's display, because widgets are one more package to install in two places, and what
they show is gone from a saved notebook.
"""

from __future__ import annotations

import importlib
from html import escape
from typing import Any

from hotloop.progress.board import Board
from hotloop.progress.budget import Budget
from hotloop.progress.live import LiveBoard

_EVERY_S, _ROWS = 0.2, 10
#: A frame is a message to the notebook; this is what one takes on a slow day.
_FRAME_S = 1e-3
_CELL = "text-align:right;padding:0 .9em;font-variant-numeric:tabular-nums"


class Notebook(LiveBoard):
    """A table in the output of the running cell."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._handle: Any = None

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        budget = Budget(every_s=_EVERY_S, cost_s=_FRAME_S)
        self._begin(Board(epochs, rows, done, last=_ROWS), budget)

    def stop(self, summary: str) -> None:
        self._show(html(self._board, summary))

    def _draw(self) -> None:
        self._show(html(self._board))

    def _show(self, page: str) -> None:
        shown = self._display.HTML(page)
        if self._handle is None:
            self._handle = self._display.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def html(board: Board, summary: str | None = None) -> str:
    """The table with bars, or, at the end, with a line that says how it ended."""
    columns = board.columns()
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in ("epoch", *columns, "samples/s"))
    body = ""
    for row in board.shown():
        best = board.is_best(row)
        cells = "".join(f'<td style="{_CELL}">{escape(text)}</td>' for text in board.cells(row, columns))
        body += f"<tr{' style=font-weight:bold title=best' if best else ''}>{cells}</tr>"
    foot = _bars(board) if summary is None else f"<p>{'<br>'.join(map(escape, summary.splitlines()))}</p>"
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}</div>"


def _bars(board: Board) -> str:
    def bar(text: str, done: float, total: int, more: str) -> str:
        return f'<div>{text} <progress value="{done:.6g}" max="{total}"></progress> {escape(more)}</div>'

    whole = board.epoch + board.fraction
    bars = bar(f"epoch {board.epoch}/{board.epochs}", whole, board.epochs, board.status())
    if board.batch:
        loss = board.running.get("loss")
        more = "" if loss is None else f"loss {loss:.4g}"
        bars += bar(f"batch {board.batch}/{board.batches}", board.batch, board.batches, more)
    return bars
