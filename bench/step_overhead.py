# SPDX-License-Identifier: Apache-2.0
"""What a call from Python costs on top of its native steps: python -m bench.step_overhead [--save]

`TrainStep` on batches, and `predict` of one row, one thread. Each round times many calls, and then as many
runs of the same program in one native call on what its input buffers hold; the difference is the way in and
out: the lock, the checks, the copies, the result. An epoch of `fit` is measured the same way, on one batch, so
that it is all overhead. Targets: less than 5 us on top of a step, less than 10 us on top of an epoch's steps, and
less than 10 us for a prediction of one row by 64-128-10.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits

ROUNDS = 100
#: Of one timed run: long beside the clock, and short, so that some fall between two disturbances.
RUN_S = 0.003
#: sizes, rows of a batch, weighted
STEPS = (((64, 128, 10), 32, False), ((64, 128, 10), 32, True), ((10, 32, 32, 10), 128, False))
PREDICTIONS = ((64, 128, 10), (784, 512, 512, 10))
#: Epochs of one call of fit, so that its set-up is a small part.
EPOCHS = 1000
TARGET_US = {"step": 5.0, "epoch": 10.0, "predict 64-128-10": 10.0}


def network(sizes: tuple[int, ...]) -> Any:
    """A ReLU network of these layer sizes."""
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [hl.nn.Linear(n_in, n_out), hl.nn.ReLU()]
    return hl.nn.Sequential(*layers[:-1])


def compared(name: str, call: Callable[[], object], native: Callable[[int], object]) -> list[Row]:
    """Seconds per call, and per native run, in alternating rounds; on top: the difference of the best."""
    begin = time.perf_counter()
    native(10)
    times = max(10, round(RUN_S * 10 / (time.perf_counter() - begin)))
    calls, runs = [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(times):
            call()
        middle = time.perf_counter()
        native(times)
        calls.append((middle - begin) / times)
        runs.append((time.perf_counter() - middle) / times)
    on_top = {"on_top_seconds": min(calls) - min(runs)}
    return [Row(name, "call", tuple(calls), on_top), Row(name, "native", tuple(runs))]


def step_rows(sizes: tuple[int, ...], batch: int, weighted: bool) -> list[Row]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], batch)
    weight = np.ones(batch, np.float32) if weighted else None
    step = hl.TrainStep(network(sizes), "cross_entropy", hl.optim.AdamW(1e-3), threads=1)
    for _ in range(2):
        step(x, y, weight)
    session = step._session
    assert session.graph is not None  # it has seen data
    exe = next(iter(session._programs.values()))
    params = session.params_table(exe.plan, session.graph, lr=1e-3, factors=(1.0,))[0]
    name = f"step {'-'.join(map(str, sizes))}, batch {batch}{', weighted' if weighted else ''}"
    return compared(
        name,
        lambda: step(x, y, weight),
        lambda times: exe.program.run(exe.team, batch, params=params, times=times),
    )


def predict_rows(sizes: tuple[int, ...]) -> list[Row]:
    trainer = hl.Trainer(network(sizes), "mse", threads=1)
    x = np.random.default_rng(0).standard_normal((1, sizes[0]), dtype=np.float32)
    for _ in range(2):
        trainer.predict(x)
    exe = next(iter(trainer._session._programs.values()))
    rows = compared(
        f"predict {'-'.join(map(str, sizes))}, 1 row", lambda: trainer.predict(x),
        lambda times: exe.program.run(exe.team, 1, params=np.zeros(0), times=times),
    )  # fmt: skip
    rows[0].extra["weight_bytes"] = 4 * sum(a * b for a, b in itertools.pairwise(sizes))
    return rows


def epoch_rows() -> list[Row]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 4), dtype=np.float32), rng.integers(0, 3, 8)
    trainer = hl.Trainer(hl.nn.Linear(4, 3), "cross_entropy", threads=1, progress=False)
    trainer.fit(x, y, epochs=10)
    session = trainer._session
    assert session.graph is not None  # it has seen data
    exe = next(iter(session._programs.values()))
    params = session.params_table(exe.plan, session.graph, lr=1e-3, factors=(1.0,))[0]
    calls, runs = [], []
    for _ in range(ROUNDS // 10):
        begin = time.perf_counter()
        trainer.fit(x, y, epochs=EPOCHS)
        middle = time.perf_counter()
        exe.program.run(exe.team, len(x), params=params, times=EPOCHS)
        calls.append((middle - begin) / EPOCHS)
        runs.append((time.perf_counter() - middle) / EPOCHS)
    on_top = {"on_top_seconds": min(calls) - min(runs)}
    return [
        Row("epoch of 8 rows, 4-3", "call", tuple(calls), on_top),
        Row("epoch of 8 rows, 4-3", "native", tuple(runs)),
    ]


def line(rows: list[Row]) -> list[str]:
    """One line of the table."""
    call, native = rows
    on_top = call.extra["on_top_seconds"] * 1e6
    found = {"step": on_top, "epoch": on_top, "predict 64-128-10": call.best * 1e6}
    missed = [key for key, us in found.items() if call.setting.startswith(key) and us > TARGET_US[key]]
    rate = call.extra.get("weight_bytes", 0) / native.best / 1e9
    numbers = [
        f"{call.best * 1e6:.2f}",
        f"{native.best * 1e6:.2f}",
        f"{on_top:.2f}",
        f"{rate:.0f}" if rate else "-",
    ]
    return [call.setting, *numbers, "missed" if missed else "ok"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-step_overhead.json")
    arguments = parser.parse_args()
    found = (
        [step_rows(*setting) for setting in STEPS]
        + [epoch_rows()]
        + [predict_rows(sizes) for sizes in PREDICTIONS]
    )
    print(
        table(["us per call", "call", "native", "on top", "GB/s", "target"], [line(rows) for rows in found])
    )
    if arguments.save:
        rows = [row for pair in found for row in pair]
        print(f"saved {save('step_overhead', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
