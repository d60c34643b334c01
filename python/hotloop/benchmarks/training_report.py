# SPDX-License-Identifier: Apache-2.0
"""Results of training as tables: every row of a network, then one line per network with the ratios.

Works on the stored form of a result, so that a table can be made again from its JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotloop.benchmarks.contestants import BY_NAME
from hotloop.benchmarks.harness import table
from hotloop.benchmarks.published import PUBLISHED

Rows = Sequence[Mapping[str, Any]]
#: Columns of the summary, in this order, with their headings.
FAMILIES = {"hotloop": "hotloop", "torch": "torch", "jax": "JAX scan", "sklearn": "scikit-learn"}


def settings(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["setting"] for row in rows))


def best_of(rows: Rows, setting: str, family: str) -> Mapping[str, Any] | None:
    """The fastest row of a family on a network, over its variants and thread counts."""
    found = [r for r in rows if r["setting"] == setting and BY_NAME[r["contestant"]].family == family]
    return min(found, key=lambda row: row["best"], default=None)


def microseconds(seconds: float) -> str:
    """Three digits, without an exponent.

    >>> [microseconds(s) for s in (2.34e-6, 0.0234, 0.234)]
    ['2.3', '23 400', '234 000']
    """
    value = seconds * 1e6
    if value < 99.95:
        return f"{value:.1f}"
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}".replace(",", " ")


def details(rows: Rows, setting: str) -> str:
    """Every contestant and thread count on one network; times per step."""
    ours = best_of(rows, setting, "hotloop")
    header = [
        setting, "threads", "best us", "median us", "spread", "x hotloop", "x floor", "CPU us", "first step ms",
        "peak MB",
    ]  # fmt: skip
    lines = []
    for row in rows:
        if row["setting"] != setting:
            continue
        extra = row["extra"]
        spread = row["spread"]
        lines.append([
            row["contestant"], str(extra["threads"]), microseconds(row["best"]), microseconds(row["median"]),
            "" if spread is None else f"{100 * spread:.0f} %",
            f"{row['best'] / ours['best']:.2f}" if ours else "",
            f"{row['best'] / extra['floor_s']:.2f}",
            microseconds(extra["cpu_s"]), f"{extra['first_step_s'] * 1e3:.1f}",
            f"{extra['peak_mb']:.0f} ({extra['base_mb']:.0f})",
        ])  # fmt: skip
    return table(header, lines)


def summary(rows: Rows) -> str:
    """A line per network: hotloop's best time, how many times it the peers' best are, and it over its floor."""
    header = ["network", "hotloop us", "threads", *(f"{n} x" for k, n in FAMILIES.items() if k != "hotloop")]
    lines = []
    for setting in settings(rows):
        ours = best_of(rows, setting, "hotloop")
        if ours is None:
            continue
        ratios = []
        for family in list(FAMILIES)[1:]:
            row = best_of(rows, setting, family)
            ratios.append("" if row is None else f"{row['best'] / ours['best']:.2f}")
        floor = f"{ours['best'] / ours['extra']['floor_s']:.2f}"
        lines.append([setting, microseconds(ours["best"]), str(ours["extra"]["threads"]), *ratios, floor])
    return table([*header, "own floor x"], lines)


def orientation(rows: Rows) -> str:
    """Published figures for the same work, each beside what was measured here."""
    lines = []
    for figure in PUBLISHED:
        ours = best_of(rows, figure.network.name, "hotloop")
        here = ["", "", ""]
        if ours is not None:
            rate = figure.network.flops_per_step / ours["best"] * 1e-9
            here = [microseconds(ours["best"]), f"{rate:.0f}", str(ours["extra"]["floor_threads"])]
        lines.append(
            [
                f"{figure.library}, {figure.machine}",
                microseconds(figure.seconds),
                f"{figure.gflops:.0f}",
                *here,
            ]
        )
    header = ["figure", "us", "GFLOP/s", "hotloop here us", "GFLOP/s", "threads"]
    name, differs = PUBLISHED[0].network.name, PUBLISHED[0].differs
    sources = ", ".join(dict.fromkeys(figure.source for figure in PUBLISHED))
    head = f"Published, for orientation ({name}, tanh, mse; there: {differs}; {sources}):"
    return f"{head}\n{table(header, lines)}"


def markdown(result: Mapping[str, Any]) -> str:
    """The README's table: microseconds of a step, best of the rounds and thread counts, and the ratios."""
    published = {figure.network.name for figure in PUBLISHED}
    rows = result["rows"]
    head = [*FAMILIES.values(), "floor"]
    lines = ["| one step, microseconds | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for setting in settings(rows):
        ours = best_of(rows, setting, "hotloop")
        if ours is None or setting in published:
            continue
        cells = [f"**{microseconds(ours['best'])}**"]
        for family in list(FAMILIES)[1:]:
            row = best_of(rows, setting, family)
            ratio = "" if row is None else f" ({row['best'] / ours['best']:.1f}x)"
            cells.append("" if row is None else microseconds(row["best"]) + ratio)
        extra = ours["extra"]
        cells.append(f"{microseconds(extra['floor_s'])} ({ours['best'] / extra['floor_s']:.2f}x)")
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    machine = result["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    peaks = ", ".join(f"{rate:.0f} on {n}" for n, rate in machine["fma_gflops"].items())
    source = (
        f"Best of alternating rounds and of thread counts, {result['date']}; {machine['cores']} cores of "
        f"{machine['cpu']} ({machine['isa']}; GFLOP/s by threads: {peaks}). In brackets: the peer's time over "
        f"ours, and ours over the floor. {versions}; source: "
        f"`bench/results/{result['date']}-{result['name']}.json`."
    )
    lines += ["", source]
    return "\n".join(lines)
