# SPDX-License-Identifier: Apache-2.0
"""The picture of a result of kernels beside their peers: products under the roof of this machine, and what
memory limits as a share of its stream. One thread; colours and markers as in chart.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotloop.benchmarks.chart import INK

#: Contestant: what it is called, colour (Okabe and Ito's palette) and marker.
STYLE = {
    "hotloop": ("hotloop", "#D55E00", "o"),
    "numpy": ("NumPy (OpenBLAS)", "#56B4E9", "v"),
    "torch": ("torch", "#0072B2", "s"),
    "onednn": ("oneDNN", "#009E73", "D"),
    "libxsmm": ("libxsmm", "#E69F00", "P"),
    "blis": ("BLIS", "#CC79A7", "^"),
}

Row = Mapping[str, Any]


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture as ``path`` says (.svg or .png). Raises `ImportError` without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if row["extra"].get("threads") == 1 and "bytes" in row["extra"]]
    products = [row for row in rows if row["extra"]["flops"]]
    streams = [row for row in rows if not row["extra"]["flops"]]
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    machine = result["machine"]
    _roof(left, products, machine["fma_gflops"], machine["stream_gbs"])
    _shares(right, streams, machine["stream_gbs"])
    figure.legend(
        handles=_handles({row["contestant"] for row in rows}), loc="outside upper center", ncols=len(STYLE),
        frameon=False, labelcolor=INK,
    )  # fmt: skip
    for axes in (left, right):
        _recolour(axes)
    figure.savefig(path, transparent=True, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {})


def _roof(axes: Any, rows: Sequence[Row], peak: float, stream: float) -> None:
    """GFLOP/s over operations a byte. Operands that stay in a cache can lie above the slope, none above the roof."""
    intensity = [row["extra"]["flops"] / row["extra"]["bytes"] for row in rows]
    low, high = min(intensity, default=1.0) / 1.5, max(intensity, default=100.0) * 1.5
    axes.plot([low, peak / stream, high], [low * stream, peak, peak], color=INK, linewidth=1.5)
    for row, x in zip(rows, intensity, strict=True):
        if row["contestant"] in STYLE:
            _, colour, marker = STYLE[row["contestant"]]
            rate = row["extra"]["flops"] / row["median"] * 1e-9
            axes.scatter(
                x, rate, s=40, color=colour, marker=marker, zorder=3 + (row["contestant"] == "hotloop")
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "25" else "")
    axes.set_xlabel("floating-point operations for each byte of the operands")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(
        f"Products, one thread: roof {peak:.0f} GFLOP/s, {stream:.0f} GB/s", fontsize=10, color=INK
    )


def _shares(axes: Any, rows: Sequence[Row], stream: float) -> None:
    """Bytes that must move, by time, over the rate of one stream; what stays in cache can exceed it."""
    names = list(dict.fromkeys(row["setting"] for row in rows))
    for row in rows:
        if row["contestant"] in STYLE:
            _, colour, marker = STYLE[row["contestant"]]
            share = row["extra"]["bytes"] / row["median"] * 1e-9 / stream
            at = names.index(row["setting"])
            axes.scatter(100 * share, at, s=40, color=colour, marker=marker, zorder=3)
    axes.axvline(100, color=INK, linewidth=1.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("per cent of the rate of main memory")
    axes.set_title("Limited by memory, one thread", fontsize=10, color=INK)


def _handles(found: set[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=8, label=label)
        for name, (label, colour, marker) in STYLE.items()
        if name in found
    ]


def _recolour(axes: Any) -> None:
    axes.tick_params(which="both", colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(which="major", color=INK, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
