# SPDX-License-Identifier: Apache-2.0
"""Draws every schedule of hl.schedules for docs/schedules.md: python tools/draw_schedules.py [FILE]

Twelve epochs of fifty steps each; the tables are the ones that a run would use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from hotloop import schedules

EPOCHS, PER_EPOCH = 12, 50
#: A validation loss for the schedule that watches one: better until epoch 4, and again from 8.
LOSSES = (1.0, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.5, 0.45, 0.45, 0.45, 0.45)
PANELS: list[list[schedules.Schedule]] = [
    [schedules.Constant(), schedules.Constant(warmup=0.25)],
    [schedules.Linear(), schedules.Linear(1.0, 0.25, warmup=0.25)],
    [schedules.Polynomial(2.0), schedules.Polynomial(0.5)],
    [schedules.Cosine(), schedules.Cosine(0.1, warmup=100)],
    [schedules.CosineRestarts(4), schedules.CosineRestarts(2, 2, gamma=0.7)],
    [schedules.OneCycle(), schedules.OneCycle(pct_start=0.5, anneal="linear")],
    [schedules.Step(3, 0.5), schedules.Step(3, 0.5, warmup=0.25)],
    [schedules.MultiStep([6, 9], 0.3)],
    [schedules.Exponential(0.8), schedules.Exponential(0.8, staircase=False)],
    [schedules.ReduceOnPlateau(0.5, patience=1)],
    [schedules.Custom(lambda step: min(1.0, (100 / (step + 1)) ** 0.5), name="min(1, sqrt(100 / (t + 1)))")],
]


def curve(schedule: schedules.Schedule) -> Any:
    """The factor of every step, (EPOCHS * PER_EPOCH,); that of a plateau under `LOSSES`."""
    factors = schedule.factors(EPOCHS * PER_EPOCH, PER_EPOCH)
    if isinstance(schedule, schedules.ReduceOnPlateau):
        tracker = schedule.tracker()
        after = [tracker.update(loss) for loss in LOSSES]
        factors = factors * np.repeat([1.0, *after[:-1]], PER_EPOCH)
    return factors


def label(schedule: schedules.Schedule) -> str:
    """The schedule as one would write it: arguments that are not the defaults."""
    if isinstance(schedule, schedules.Custom):
        return schedule.name
    fields = schedule.to_dict()
    fields.pop("kind")
    cls = type(schedule)
    defaults = {name: getattr(cls, name) for name in fields if hasattr(cls, name)}
    changed = [f"{name}={value}" for name, value in fields.items() if defaults.get(name) != value]
    return ", ".join(changed) or "as it comes"


def draw(path: Path) -> None:
    """Writes the picture. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(4, 3, figsize=(11, 10.5), layout="constrained", sharex=True, sharey=True)
    x = np.arange(EPOCHS * PER_EPOCH) / PER_EPOCH
    for ax, panel in zip(grid.flat, PANELS, strict=False):
        for schedule in panel:
            ax.plot(x, curve(schedule), label=label(schedule), linewidth=1.6)
        ax.set_title(type(panel[0]).__name__, fontsize=11)
        ax.legend(fontsize=7.5, loc="upper right", framealpha=0.85)
        ax.set_ylim(-0.03, 1.45)
        ax.grid(alpha=0.25)
    for ax in grid.flat[len(PANELS) :]:
        ax.set_axis_off()
    figure.supxlabel("epoch")
    figure.supylabel("factor on the learning rate")
    figure.savefig(path, dpi=80, metadata={"Software": None}, pil_kwargs={"optimize": True})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schedules.png"))
