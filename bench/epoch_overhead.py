# SPDX-License-Identifier: Apache-2.0
"""What watching a run costs: python -m bench.epoch_overhead [--save]

64-128-10 on 1000 rows in batches of 32, one thread, validated on 200 rows. Against a run that nobody watches
(loss only, no callbacks, no progress) stand runs with two callbacks, with plain progress, with accuracy on both
sets, and with all of it, in alternating rounds; what is on top is the difference of the best of each. The target for
all together is 50 us an epoch or 2 % of it, whichever is more. A callback for every tenth batch is there to see what a
pause of the native loop costs, and is not part of the target: who asks for it pays.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits

ROWS, VALIDATION, BATCH, EPOCHS, ROUNDS = 1000, 200, 32, 300, 15
TARGET_S, TARGET_SHARE = 50e-6, 0.02
PAUSES = -(-ROWS // BATCH) / 10  # of an epoch, by a callback for every tenth batch


class Watch(hl.Callback):
    """Reads what a callback usually reads."""

    def __init__(self) -> None:
        self.best = np.inf

    def on_epoch_end(self, state: hl.callbacks.FitState) -> None:
        self.best = min(self.best, state.metrics["val_loss"])


class Batches(Watch):
    every_n_batches = 10

    def on_batch_end(self, state: hl.callbacks.FitState) -> None:
        self.best = min(self.best, state.metrics["loss"])


#: What is added to a run that nobody watches: arguments of Trainer.
SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "nobody watches": dict,
    "two callbacks": lambda: {"callbacks": [Watch(), lambda state: state.metrics["val_loss"]]},
    "plain progress": lambda: {"progress": True},
    "accuracy": lambda: {"metrics": "accuracy"},
    "all of it": lambda: {"callbacks": [Watch(), Watch()], "progress": True, "metrics": "accuracy"},
    "every 10th batch": lambda: {"callbacks": [Batches()]},
}


def trainer_for(more: dict[str, Any]) -> hl.Trainer:
    """A trainer of the same network, the same loss and nothing else."""
    model = hl.nn.Sequential(hl.nn.Linear(64, 128), hl.nn.ReLU(), hl.nn.Linear(128, 10))
    return hl.Trainer(model, "cross_entropy", threads=1, **{"metrics": None, "progress": False, **more})


def measured() -> list[Row]:
    """Seconds per epoch of each setting, in rounds that take turns."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS + VALIDATION, 64), dtype=np.float32)
    y = rng.integers(0, 10, ROWS + VALIDATION)
    held = (x[ROWS:], y[ROWS:])
    trainers = {name: trainer_for(more()) for name, more in SETTINGS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with Path(os.devnull).open("w", encoding="utf-8") as null, contextlib.redirect_stdout(null):
        for trainer in trainers.values():
            trainer.fit(x[:ROWS], y[:ROWS], validation=held, epochs=3, batch_size=BATCH)
        for at in range(ROUNDS):
            names = [*SETTINGS][at % len(SETTINGS) :] + [*SETTINGS][: at % len(SETTINGS)]
            for name in names:
                begin = time.perf_counter()
                trainers[name].fit(x[:ROWS], y[:ROWS], validation=held, epochs=EPOCHS, batch_size=BATCH)
                seconds[name].append((time.perf_counter() - begin) / EPOCHS)
    alone = min(seconds["nobody watches"])
    return [
        Row(name, "hotloop", tuple(found), {"on_top_seconds": min(found) - alone})
        for name, found in seconds.items()
    ]


def line(row: Row, alone: float) -> list[str]:
    """One line of the table."""
    on_top = row.extra["on_top_seconds"]
    allowed = max(TARGET_S, TARGET_SHARE * alone)
    verdict = ("ok" if on_top <= allowed else "MISSED") if row.setting == "all of it" else ""
    if row.setting == "every 10th batch":
        verdict = f"{on_top / PAUSES * 1e6:.1f} us a pause"
    numbers = [f"{row.best * 1e6:.1f}", f"{on_top * 1e6:.1f}", f"{on_top / alone:.1%}"]
    return [row.setting, *numbers, verdict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-epoch_overhead.json")
    arguments = parser.parse_args()
    rows = measured()
    print(table(["us per epoch", "fit", "on top", "", "target"], [line(row, rows[0].best) for row in rows]))
    if arguments.save:
        print(f"saved {save('epoch_overhead', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
