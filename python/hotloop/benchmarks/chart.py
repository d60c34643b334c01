# SPDX-License-Identifier: Apache-2.0
"""The chart of a training result: microseconds of a step by network and library, on a logarithmic scale.

The background is transparent and lines and letters are a grey that both light and dark pages carry; each
library has its own marker beside its own colour, so that colours alone carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotloop.benchmarks.published import PUBLISHED
from hotloop.benchmarks.training_report import FAMILIES, best_of, settings

#: Mid-grey: contrast of at least 4 with white and with GitHub's dark page.
INK = "#7d8590"
#: Family: colour (of Okabe and Ito's palette, which the colour-blind can tell apart) and marker.
STYLE = {
    "hotloop": ("#D55E00", "o"),
    "torch": ("#0072B2", "s"),
    "jax": ("#009E73", "D"),
    "sklearn": ("#CC79A7", "^"),
}
#: Markers of one network stand a little apart, so that equal times do not hide each other.
APART = 0.13


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the chart as ``path`` says (.svg or .png). Raises `ImportError` without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["rows"]
    published = {figure.network.name for figure in PUBLISHED}
    names = [name for name in settings(rows) if name not in published]
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, name in enumerate(names):
        found = {f: row for f in FAMILIES if (row := best_of(rows, name, f)) is not None}
        times = [row["best"] * 1e6 for row in found.values()]
        axes.plot([min(times), max(times)], [index, index], color=INK, linewidth=0.8, zorder=1)
        floor = found["hotloop"]["extra"]["floor_s"] * 1e6
        axes.plot([floor, floor], [index - 0.28, index + 0.28], color=INK, linewidth=2.5, zorder=2)
        for place, family in enumerate(FAMILIES):
            if family in found:
                colour, marker = STYLE[family]
                y = index + (place - (len(FAMILIES) - 1) / 2) * APART
                axes.scatter(found[family]["best"] * 1e6, y, s=46, color=colour, marker=marker, zorder=3)
    _legend(axes, [f for f in FAMILIES if any(best_of(rows, name, f) for name in names)])
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    axes.set_xlabel("microseconds per training step, best of all thread counts (log scale)")
    _recolour(axes)
    figure.savefig(path, transparent=True, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {})


def _legend(axes: Any, families: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=STYLE[f][0], marker=STYLE[f][1], linestyle="", markersize=8, label=FAMILIES[f])
        for f in families
    ]
    handles.append(
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=12, markeredgewidth=2.5, label="floor")
    )
    legend = axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False
    )
    for text in legend.get_texts():
        text.set_color(INK)


def _recolour(axes: Any) -> None:
    axes.tick_params(which="both", colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.grid(axis="x", which="major", color=INK, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
