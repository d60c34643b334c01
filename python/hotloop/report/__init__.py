# SPDX-License-Identifier: Apache-2.0
"""A run as pictures and as a page: pure functions of its History.

matplotlib and jinja2 (the extra ``plot``) are imported by the modules that draw, so that nothing else pays.
"""

from __future__ import annotations

import importlib.util
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from hotloop.history import History

PathLike = Union[str, "os.PathLike[str]"]


def plot(history: History, path: PathLike | None = None) -> Any:
    """The curves as a figure; see `History.plot`."""
    check_installed("plot", "matplotlib")
    if not history.epochs:
        raise ValueError("[plot] no epoch of this run ended, so there are no curves; fit with more time")
    from hotloop.report import curves

    figure = curves.figure(history)
    if path is not None:
        figure.savefig(path)
    return figure


def write(history: History, path: PathLike, data: Any = None) -> str:
    """The page as a file; see `History.report`."""
    check_installed("report", "matplotlib", "jinja2")
    from hotloop.report import page

    text = page.render(history, data)
    # what UTF-8 cannot say (half a character in a name) becomes a reference, and never an error at the end
    Path(path).write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
    return os.fspath(path)


def notebook_html(history: History) -> str | None:
    """The summary and the curves for a notebook; None without matplotlib or without an epoch."""
    if importlib.util.find_spec("matplotlib") is None or not history.epochs:
        return None
    from hotloop.report import curves, style

    return (
        f"<div><p>{escape(repr(history))}</p>{style.svg(curves.figure(history), 'curves', wide=True)}</div>"
    )


def check_installed(where: str, *packages: str) -> None:
    """Raises `ImportError` that says how to install what is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"[{where}] needs {' and '.join(missing)}; install the extra: pip install 'hotloop[plot]'"
        )
