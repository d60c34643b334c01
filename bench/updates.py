# SPDX-License-Identifier: Apache-2.0
"""What shared updates and averaged weights cost a step: python -m bench.updates [--save]

Whole fits on one thread, in alternating rounds; seconds per batch, and beside them the ratio to a plain fit.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import asdict
from typing import Any

import numpy as np

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits

#: sizes, rows of a batch, batches of a fit, rounds
SETTINGS = (((64, 128, 10), 32, 2000, 20), ((784, 256, 128, 10), 64, 120, 10))
CONTESTANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema=0.999": {"ema": 0.999},
    "accumulate=4": {"accumulate": 4},
    "both": {"accumulate": 4, "ema": 0.999},
}


def trainer(sizes: tuple[int, ...], options: dict[str, Any]) -> hl.Trainer:
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [hl.nn.Linear(n_in, n_out), hl.nn.ReLU()]
    return hl.Trainer(hl.nn.Sequential(*layers[:-1]), "cross_entropy", threads=1, progress=False, **options)


def measure(sizes: tuple[int, ...], batch: int, batches: int, rounds: int) -> list[Row]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * batches, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], len(x))
    trainers = {name: trainer(sizes, options) for name, options in CONTESTANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, one in trainers.items():
            begin = time.perf_counter()
            one.fit(x, y, epochs=1, batch_size=batch)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - begin) / batches)
    setting = f"{'-'.join(map(str, sizes))}, batch {batch}"
    plain = min(times["plain"])
    return [Row(setting, name, tuple(t), {"of_plain": min(t) / plain}) for name, t in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-updates.json")
    arguments = parser.parse_args()
    rows = [row for setting in SETTINGS for row in measure(*setting)]
    lines = [
        [row.setting, row.contestant, f"{row.best * 1e6:.2f}", f"{row.extra['of_plain']:.3f}"] for row in rows
    ]
    print(table(["network", "trainer", "us per batch", "of plain"], lines))
    if arguments.save:
        print(f"saved {save('updates', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
