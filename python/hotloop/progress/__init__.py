# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it runs: a live table on a terminal or in a notebook, lines in a log.

Nothing here runs between two steps. A display costs at most one hundredth of the run's time, see budget.py;
"auto" is silent when nobody watches.
"""

from __future__ import annotations

import sys
from typing import IO, Any, Literal, Union

from hotloop.progress.base import Silent
from hotloop.progress.plain import Plain
from hotloop.progress.text import duration, epoch_line, quantity

__all__ = [
    "Plain", "ProgressOption", "Silent", "check_progress", "duration", "epoch_line", "make_progress", "quantity",
]  # fmt: skip

ProgressOption = Union[bool, Literal["auto"]]


def make_progress(option: ProgressOption, stream: IO[str] | None = None) -> Silent:
    """The display for an option: False nothing, True always, "auto" where somebody watches.

    A notebook gets a live table in its cell. Elsewhere ``stream`` (standard output unless given) decides: a
    terminal gets a live table if rich is installed, everything else plain lines.
    """
    if option is False:
        return Silent()
    if stream is None and in_notebook():
        from hotloop.progress.notebook import Notebook

        return Notebook()
    stream = sys.stdout if stream is None else stream
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    if option == "auto" and not terminal:
        return Silent()
    if terminal:
        try:
            from hotloop.progress.terminal import Terminal, can_redraw
        except ImportError:
            return Plain(stream)
        if can_redraw(stream):
            return Terminal(stream)
    return Plain(stream)


def in_notebook() -> bool:
    """Whether cells of a notebook are what we print to: IPython runs, and has a kernel behind it."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def check_progress(option: ProgressOption) -> ProgressOption:
    """Raises `ValueError` for anything but True, False or "auto"."""
    if option not in (True, False, "auto"):
        raise ValueError(f'[Trainer] progress must be True, False or "auto", got {option!r}')
    return option
