# SPDX-License-Identifier: Apache-2.0
"""What a second thread costs and gains, alone and beside a busy process: python -m bench.threads [--save]

The process keeps to two processors. One thread, two, and the default (which tries both as it runs) take
turns; first with the machine to themselves, then with the second processor kept busy by another process.
Targets: processor time of the default at most 1.15 times that of one thread, and beside the busy process a
wall time of at most 1.1 times that of one thread, for two threads as for the default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import asdict

from bench._harness import Row, machine, save, settle, table
from hotloop.benchmarks.harness import busy, measure_limits
from hotloop.benchmarks.networks import Network, selected
from hotloop.benchmarks.run_hotloop import HotloopRunner

ROUNDS = 9
#: Of one timed run: many of the stretches in which the default tries team and single thread.
RUN_S = 0.06
CONTESTANTS = {"1 thread": 1, "2 threads": 2, "default": None}
TARGETS = {"cpu, default": 1.15, "busy wall, 2 threads": 1.1, "busy wall, default": 1.1}


def rounds(network: Network, where: str) -> list[Row]:
    """Wall seconds per step of each contestant; processor seconds per step as an extra."""
    runners = {name: HotloopRunner(network, threads) for name, threads in CONTESTANTS.items()}
    walls: dict[str, list[float]] = {name: [] for name in runners}
    cpus: dict[str, list[float]] = {name: [] for name in runners}
    settle()  # the data was made with NumPy's BLAS, whose threads spin for a while
    for runner in runners.values():
        runner.run(1, shuffle=True)
    begin = time.perf_counter()
    runners["1 thread"].run(1, shuffle=True)
    epochs = max(1, round(RUN_S / (time.perf_counter() - begin)))
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            wall, cpu = time.perf_counter(), time.process_time()
            runner.run(epochs, shuffle=True)
            walls[name].append((time.perf_counter() - wall) / (epochs * network.steps))
            cpus[name].append((time.process_time() - cpu) / (epochs * network.steps))
    base = walls["1 thread"], cpus["1 thread"]
    return [
        Row(f"{network.name}, {where}", name, tuple(walls[name]), {
            "cpu_seconds": [round(s, 9) for s in cpus[name]],
            "wall_ratio": paired(walls[name], base[0]),
            "cpu_ratio": paired(cpus[name], base[1]),
        })
        for name in runners
    ]  # fmt: skip


def paired(ours: list[float], base: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return round(statistics.median(a / b for a, b in zip(ours, base, strict=True)), 3)


def compared(network: Network, processors: tuple[int, int]) -> tuple[list[Row], list[str]]:
    """The rows of one network, and its line of the table."""
    free = rounds(network, "free")
    with busy(processors[1]):
        loaded = rounds(network, "second processor busy")
    found = {
        "cpu, default": free[2].extra["cpu_ratio"],
        "busy wall, 2 threads": loaded[1].extra["wall_ratio"],
        "busy wall, default": loaded[2].extra["wall_ratio"],
    }
    missed = [name for name, limit in TARGETS.items() if found[name] > limit]
    us = [f"{row.median * 1e6:.1f}" for row in free]
    ratios = [f"{free[1].extra['cpu_ratio']:.2f}", *(f"{value:.2f}" for value in found.values())]
    return [*free, *loaded], [network.name, *us, *ratios, "; ".join(missed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-threads.json")
    parser.add_argument("--networks", help="keys such as 64-128-10,784-30-10; all by default")
    arguments = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("[bench] threads needs two processors; this process may use one")
    processors = allowed[0], allowed[1]
    os.sched_setaffinity(0, processors)
    rows, lines = [], []
    for network in selected(arguments.networks):
        found, line = compared(network, processors)
        rows += found
        lines.append(line)
    header = ["network", "us, 1", "us, 2", "us, default", "cpu, 2", *TARGETS, "missed"]
    print(table(header, lines))
    if arguments.save:
        print(f"saved {save('threads', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
