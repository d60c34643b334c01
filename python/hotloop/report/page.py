# SPDX-License-Identifier: Apache-2.0
"""The page: sections put into the template beside this file, which escapes everything that is not ours."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hotloop.report import sections
from hotloop.report.style import GRID, INK, MUTED, SERIES

if TYPE_CHECKING:
    from hotloop.history import History


def render(history: History, data: Any = None) -> str:
    """The whole page as text; see `History.report`."""
    # first what needs the model, and may refuse the data
    predictions = sections.predictions(history, data)
    whole = history.epochs > 0
    parts = {
        "summary": sections.summary(history),
        "findings": sections.findings(history),
        "curves": sections.curve_figures(history) if whole else [],
        "lr": sections.learning_rate(history),
        "predictions": predictions,
        "norms": sections.norms(history),
        "cost": sections.cost(history),
        "configuration": sections.configuration(history),
        "environment": history.about.get("environment"),
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "css": Markup(_file("page.css")),
        "colours": {"ink": INK, "muted": MUTED, "grid": GRID} | {f"s{i}": c for i, c in enumerate(SERIES)},
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = Markup  # our own SVG, in which matplotlib has escaped all text
    text: str = environment.from_string(_file("page.html.jinja")).render(parts).lstrip()
    return text


def _file(name: str) -> str:
    return files("hotloop.report").joinpath(name).read_text(encoding="utf-8")
