# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it runs: one row per epoch.

With rich on a terminal, a bar with the time left under the rows; without, one plain line per epoch.
"auto" is silent when the output is not a terminal. Nothing here runs between two steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, Any, Literal, Union

ProgressOption = Union[bool, Literal["auto"]]


class Silent:
    """Shows nothing; also the interface of the others."""

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        """The run begins, or goes on after ``done`` epochs: ``rows`` samples per epoch."""

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        """An epoch (1-based) ended after ``seconds``, validation included."""

    def stop(self, summary: str) -> None:
        """The run ended; never called twice."""


class Plain(Silent):
    """One line per epoch on a text stream."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        self._epochs, self._rows, self._done = epochs, rows, done
        self._begin = time.perf_counter()

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        left = (time.perf_counter() - self._begin) / (epoch - self._done) * (self._epochs - epoch)
        self._print(f"{epoch_line(epoch, self._epochs, metrics, self._rows / max(seconds, 1e-9))}  "
                    f"{duration(left)} left")  # fmt: skip

    def stop(self, summary: str) -> None:
        self._print(summary)

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Rich(Silent):
    """The same rows above a live bar, drawn by rich."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(file=stream), transient=True,
        )  # fmt: skip

    def start(self, epochs: int, rows: int, done: int = 0) -> None:
        self._epochs, self._rows = epochs, rows
        self._task: Any = self._bar.add_task("fit", total=epochs, completed=done)
        self._bar.start()

    def epoch(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> None:
        line = epoch_line(epoch, self._epochs, metrics, self._rows / max(seconds, 1e-9))
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._bar.update(self._task, completed=epoch)

    def stop(self, summary: str) -> None:
        self._bar.stop()
        self._bar.console.print(summary, highlight=False, markup=False, soft_wrap=True)


def epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float], rows_per_second: float) -> str:
    """``epoch  3/20  loss 0.1234  val_loss 0.2345  lr 1.0e-03  12.3k samples/s``"""
    width = len(str(epochs))
    parts = [f"epoch {epoch:>{width}}/{epochs}"]
    parts += [f"{name} {value:.4g}" if name != "lr" else f"lr {value:.1e}" for name, value in metrics.items()]
    return "  ".join([*parts, f"{quantity(rows_per_second)} samples/s"])


def quantity(value: float) -> str:
    """Three digits and a unit: 950, 12.3k, 4.56M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as 4.2s, 3m05s or 2h07m."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def make_progress(option: ProgressOption, stream: IO[str] | None = None) -> Silent:
    """The display for an option: False nothing, True always, "auto" only on a terminal.

    ``stream`` is standard output unless given.
    """
    stream = sys.stdout if stream is None else stream
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    if option is False or (option == "auto" and not terminal):
        return Silent()
    if terminal:
        try:
            return Rich(stream)
        except ImportError:
            pass
    return Plain(stream)


def check_progress(option: ProgressOption) -> ProgressOption:
    """Raises `ValueError` for anything but True, False or "auto"."""
    if option not in (True, False, "auto"):
        raise ValueError(f'[Trainer] progress must be True, False or "auto", got {option!r}')
    return option
