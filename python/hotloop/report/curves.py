# SPDX-License-Identifier: Apache-2.0
"""The curves of a run: one panel per metric with training and validation together, and the learning rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hotloop.report.style import MUTED, SERIES, drawing, new_figure
from hotloop.report.words import label

if TYPE_CHECKING:
    from hotloop.history import History

#: Points of a line; of more, each stretch shows its lowest and highest.
_MAX_POINTS = 800
#: A loss that falls by more than this is shown on a logarithmic axis.
_LOG_FROM = 30.0
#: A learning rate also, but only if most of the run has a small one: the end of a cosine is no reason.
_LR_LOG_FROM = 10.0
_PANEL = (4.2, 2.7)


def set_names(history: History) -> list[str]:
    """The names of the validation sets."""
    data = history.about.get("configuration", {}).get("data", {})
    return list(data.get("validation rows", {"val": 0}))


def groups(history: History) -> dict[str, list[tuple[str, list[float]]]]:
    """metric -> [(series, values)]: "training" first, then the validation sets. "lr" is none of them, nor is a
    metric that is the loss once more.

    >>> from hotloop.history import History
    >>> list(groups(History({"loss": [1.0], "val_loss": [2.0], "lr": [0.1]})))
    ['loss']
    """
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for name, values in history.history.items():
        if name == "lr":
            continue
        owner = next((s for s in set_names(history) if name.startswith(f"{s}_")), None)
        metric = name if owner is None else name[len(owner) + 1 :]
        found.setdefault(metric, []).append(("training" if owner is None else owner, values))
    return {
        name: series
        for name, series in found.items()
        if name == "loss" or not _same(series, found.get("loss"))
    }


def _same(some: list[tuple[str, list[float]]], others: list[tuple[str, list[float]]] | None) -> bool:
    """Whether two groups show the same values, up to the rounding of sums in another order."""
    return others is not None and [(s, len(v)) for s, v in some] == [(s, len(v)) for s, v in others] and all(
        math.isclose(a, b, rel_tol=1e-6) for (_, x), (_, y) in zip(some, others, strict=True)
        for a, b in zip(x, y, strict=True)
    )  # fmt: skip


def thinned(values: Sequence[float], points: int = _MAX_POINTS) -> tuple[list[int], list[float]]:
    """(epochs, values) of at most so many points, with the extremes of what was left out.

    >>> thinned([1.0, 5.0, 0.0, 2.0], 2)
    ([2, 3], [5.0, 0.0])
    """
    n = len(values)
    if n <= points:
        return list(range(1, n + 1)), list(values)
    bins = max(points // 2, 1)
    keep: set[int] = set()
    for i in range(bins):
        part = [k for k in range(i * n // bins, (i + 1) * n // bins) if math.isfinite(values[k])]
        if part:
            keep |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return [k + 1 for k in sorted(keep)], [values[k] for k in sorted(keep)]


def figure(history: History) -> Any:
    """All panels side by side, for `History.plot`."""
    metrics = list(groups(history))
    panels = [*metrics, *(["lr"] if "lr" in history.history else [])]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    with drawing():
        result = new_figure(_PANEL[0] * columns, _PANEL[1] * rows)
        for i, name in enumerate(panels):
            axes = result.add_subplot(rows, columns, i + 1)
            draw_lr(axes, history) if name == "lr" else draw_metric(axes, history, name)
    return result


def panel(history: History, metric: str) -> Any:
    """One metric, or "lr", as a figure of its own."""
    with drawing():
        result = new_figure(*_PANEL)
        axes = result.add_subplot()
        draw_lr(axes, history) if metric == "lr" else draw_metric(axes, history, metric)
    return result


def draw_metric(axes: Any, history: History, metric: str) -> None:
    """Training and validation values of a metric by epoch."""
    shown: list[float] = []
    for i, (series, values) in enumerate(groups(history)[metric]):
        epochs, kept = thinned(values)
        marker = "o" if len(values) == 1 else ""
        axes.plot(epochs, kept, color=SERIES[i % len(SERIES)], label=label(series), marker=marker)
        shown += [v for v in kept if math.isfinite(v)]
    if shown and min(shown) > 0 and max(shown) > _LOG_FROM * min(shown):
        log_axis(axes, shown)
    _mark_best(axes, history, metric)
    axes.set_title(label(metric))
    _epoch_axis(axes, history)
    axes.legend(loc="best")


def draw_lr(axes: Any, history: History) -> None:
    """The learning rate of each epoch's last step."""
    values = history.history["lr"]
    epochs, kept = thinned(values)
    axes.plot(epochs, kept, color=SERIES[0], marker="o" if len(values) == 1 else "")
    if min(kept) > 0 and max(kept) > _LR_LOG_FROM * statistics.median(kept):
        log_axis(axes, kept)
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_title("learning rate")
    _epoch_axis(axes, history)


def _mark_best(axes: Any, history: History, metric: str) -> None:
    best = history.best_epoch
    if best is None:
        return
    axes.axvline(best, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    values = history.history.get(history.monitor, [])
    monitored = [m for m, series in groups(history).items() if any(v is values for _, v in series)]
    if metric in monitored and math.isfinite(values[best - 1]):
        axes.plot([best], [values[best - 1]], "o", color=MUTED, markersize=5, zorder=4)
        late = best > 0.6 * history.epochs
        axes.annotate(
            f"best {values[best - 1]:.4g}", (best, values[best - 1]), (-5 if late else 5, 7),
            textcoords="offset points", ha="right" if late else "left",
        )  # fmt: skip


def _epoch_axis(axes: Any, history: History) -> None:
    axes.set_xlabel("epoch")
    if history.epochs > 1:
        axes.set_xlim(1, history.epochs)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def log_axis(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis for values > 0, with labels that are plain numbers, and not too many."""
    decades = math.log10(max(values) / min(values))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, position: Any = None) -> str:
    return f"{value:g}"
