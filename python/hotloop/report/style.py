# SPDX-License-Identifier: Apache-2.0
"""How figures look, and how they become SVG that belongs into a page.

Figures are drawn in plain colours; for a page each colour becomes a CSS variable (with the plain colour for
where there is none), so that one picture serves a light and a dark page. Text stays text: small, sharp, and
escaped by matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#6a737d", "#d8dee4"
#: Training, validation, and then whatever else there is; told apart by the colour-blind too (Okabe and Ito
#: 2008, a little darker).
SERIES = ("#0a62a8", "#d05a00", "#00856a", "#a8458a", "#8a6d00", "#3b9cc9")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {c: f"s{i}" for i, c in enumerate(SERIES)}

_RC: dict[str, Any] = {
    "text.parse_math": False,  # names are the user's, and may hold a dollar
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": INK,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9, "font.size": 9, "legend.fontsize": 9,
    "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK, "legend.frameon": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "white",
    "svg.fonttype": "none", "lines.linewidth": 1.6,
}  # fmt: skip


class Plot(Figure):
    """A figure that notebooks show by itself, without pyplot and its list of open figures."""

    def _repr_svg_(self) -> str:
        return svg(self, "plot")


@contextmanager
def drawing() -> Iterator[None]:
    """Everything that makes text or axes happens in here."""
    with mpl.rc_context(_RC), warnings.catch_warnings():
        # the page's fonts know more characters than the one that text is measured with
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing", category=UserWarning)
        yield


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches; to be used in `drawing`."""
    return Plot(figsize=(width, height), layout="constrained")


def svg(figure: Figure, name: str, *, wide: bool = False, label: str = "") -> str:
    """The figure as an ``<svg>`` element, for inside of a page. ``name`` keeps its ids apart from those of
    other figures; ``wide``: as large as drawn at most."""
    buffer = io.StringIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # the same in every figure, and nothing refers to them
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    )
    text = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", r"font: \1\2 system-ui, sans-serif", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    width = f' style="max-width:{figure.get_figwidth():.3g}in;width:100%"' if wide else ""
    title = f' aria-label="{label}"' if label else ""
    return text.replace("<svg", f'<svg role="img"{title}{width}', 1).strip()


_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
