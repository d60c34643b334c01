# SPDX-License-Identifier: Apache-2.0
"""The other figures of the page: calibration, residuals, norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hotloop.report.curves import log_axis
from hotloop.report.predictions import BINS, Reliability, Values
from hotloop.report.style import MUTED, SERIES, drawing, new_figure
from hotloop.report.words import label

_PANEL = (4.2, 3.1)
#: Points of a scatter plot; each is some 60 bytes of the page.
_MAX_POINTS = 700
_HISTOGRAM_BINS = 31


def calibration(found: Reliability) -> Any:
    """Accuracy against confidence by bin, and below it how many rows each bin has."""
    edges = np.arange(BINS) / BINS
    used = found.rows > 0
    with drawing():
        figure = new_figure(*_PANEL)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot(
            [0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)), label="as confident as right"
        )
        upper.bar(edges[used], found.accuracy[used], 1 / BINS, align="edge", color=SERIES[0], alpha=0.45)
        upper.plot(
            found.confidence[used],
            found.accuracy[used],
            "o",
            color=SERIES[0],
            markersize=4,
            label="this model",
        )
        upper.set(xlim=(0, 1), ylim=(-0.02, 1.03), ylabel="accuracy", title="reliability")
        upper.legend(loc="upper left")
        lower.bar(edges, found.rows, 1 / BINS, align="edge", color=MUTED, alpha=0.6)
        lower.set(xlabel="confidence", ylabel="rows")
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2))
        for axis in (upper.yaxis, upper.xaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def fit_of_values(true: Values, predicted: Values, unit: str) -> Any:
    """Predicted against true values, (n,) each."""
    rows = _evenly(len(true))
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    with drawing():
        figure = new_figure(*_PANEL)
        axes = figure.add_subplot()
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.plot(true[rows], predicted[rows], "o", color=SERIES[0], markersize=3.2, alpha=0.55, mew=0)
        axes.set(
            xlabel=f"true {unit}".strip(), ylabel=f"predicted {unit}".strip(), title="predicted and true"
        )
    return figure


def residuals(true: Values, predicted: Values, unit: str) -> Any:
    """What is left over, by prediction: a cloud without a shape is what one hopes for."""
    rows, left = _evenly(len(true)), predicted - true
    with drawing():
        figure = new_figure(*_PANEL)
        cloud, counts = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        cloud.axhline(0, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        cloud.plot(predicted[rows], left[rows], "o", color=SERIES[0], markersize=3.2, alpha=0.55, mew=0)
        cloud.set(xlabel=f"predicted {unit}".strip(), ylabel="predicted - true", title="residuals")
        counts.hist(left, bins=_HISTOGRAM_BINS, orientation="horizontal", color=SERIES[0], alpha=0.6)
        counts.set(xlabel="rows")
        counts.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=2))
    return figure


def norms(epochs: Sequence[int], lines: Sequence[tuple[str, Sequence[Any]]], title: str) -> Any:
    """Norms by epoch, a line per parameter, on logarithmic axes; what is not finite or 0 is left out."""
    with drawing():
        figure = new_figure(*_PANEL)
        axes = figure.add_subplot()
        for i, (name, values) in enumerate(lines):
            points = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None and v > 0]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=3,
                    color=SERIES[i % len(SERIES)],
                    label=label(name),
                )
        if axes.lines:
            log_axis(axes, [float(v) for line in axes.lines for v in line.get_ydata()])
            axes.legend(loc="best", fontsize=8)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    return figure


def _evenly(rows: int) -> Any:
    count = min(rows, _MAX_POINTS)
    return np.arange(count) * rows // count
