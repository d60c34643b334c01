# SPDX-License-Identifier: Apache-2.0
"""Training steps on a GPU beside torch and JAX: python -m bench.gpu.training [--save] [--out FOLDER]

Whole calls that train epochs, as in bench/train.py: from the same weights, in the order of the rows, everybody must
reach the same losses first; then timed rounds in turn, each contestant in a process of its own. Data are on the
device before the clock starts for torch and JAX, as their users would have them; hotloop is given NumPy arrays, so
that its copies to the device count. ``--device simt`` trains tiny networks on the emulator, to test this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench._harness import RESULTS, Row, machine, save, table
from bench.gpu.device import DeviceLimits, describe
from hotloop.benchmarks.contestants import BY_NAME, Entry
from hotloop.benchmarks.networks import Network
from hotloop.benchmarks.pool import Pool, WorkerError

#: Of the project's targets.
NETWORKS = (
    Network((64, 128, 10), batch=32, steps=256),
    Network((784, 512, 512, 10), batch=128, steps=64),
    Network((64, 64, 64, 64, 64), batch=1 << 16, steps=4, loss="mse"),
)
TINY = (Network((5, 8, 3), batch=4, steps=2),)
#: A peer's time over ours, by network and contestant.
TARGETS = {
    NETWORKS[0].name: {"torch eager, cuda": 10.0, "torch graph, cuda": 3.0, "JAX scan, cuda": 2.0},
    NETWORKS[1].name: {"torch eager, cuda": 10.0, "torch graph, cuda": 1.5, "JAX scan, cuda": 1.2},
    NETWORKS[2].name: {"torch compiled, cuda": 3.0, "torch eager, cuda": 5.0},
}
CONTESTANTS = (
    "hotloop, cuda", "hotloop, cuda bf16", "torch eager, cuda", "torch compiled, cuda", "torch graph, cuda",
    "torch eager, cuda bf16", "JAX scan, cuda",
)  # fmt: skip
#: Largest difference of losses, as a part: float32 sums in other orders, bf16's operands of 8 bits.
SAME_CURVE, SAME_CURVE_BF16 = 1e-3, 5e-2
EPOCHS_COMPARED = 2
ROUNDS, ROUND_SECONDS = 5, 0.25


def entries(device: str) -> list[Entry]:
    """hotloop on the device, and who else is installed. The first is whom all others are compared with."""
    if device == "simt":
        return [Entry("hotloop, simt", None), Entry("hotloop", 1)]
    return [
        Entry(name, None) for name in CONTESTANTS if importlib.util.find_spec(BY_NAME[name.partition(",")[0]].needs)
    ]  # fmt: skip


def check_curve(network: Network, name: str, curve: Sequence[float], ours: Sequence[float]) -> None:
    """Raises `AssertionError` unless it falls and is hotloop's."""
    allowed = SAME_CURVE_BF16 if "bf16" in name else SAME_CURVE
    assert curve[-1] < curve[0], f"{network.name}: {name}'s loss does not fall: {curve}"
    for value, expected in zip(curve, ours, strict=True):
        assert math.isclose(value, expected, rel_tol=allowed), (
            f"{network.name}: {name} has a loss of {value:.6g} where hotloop has {expected:.6g}; allowed {allowed:g}"
        )


def measure(
    network: Network, pool: Pool, *, rounds: int, round_seconds: float
) -> tuple[list[Row], list[str], list[str]]:
    """Rows, why a contestant is left out, and who reached other losses; neither may be hotloop itself."""
    curves: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    left_out, wrong = [], []
    for label, worker in pool.workers.items():
        name = worker.entry.contestant
        try:
            worker.begin(network)
            answer = worker.ask("prepare", curve_epochs=EPOCHS_COMPARED)
            worker.ask("calibrate", seconds=round_seconds)
        except WorkerError as error:
            if not curves:
                raise
            left_out.append(f"{name} on {network.name}: {error}")
            continue
        try:
            check_curve(network, name, answer["curve"], next(iter(curves.values()), answer["curve"]))
        except AssertionError as error:
            if not curves:
                raise
            worker.ask("finish")
            wrong.append(str(error))
            continue
        curves[label], first[label] = answer["curve"], answer["first_step_s"]
    seconds: dict[str, list[float]] = {label: [] for label in curves}
    for turn in range(rounds):
        labels = list(seconds)
        for label in labels[turn % len(labels) :] + labels[: turn % len(labels)]:
            seconds[label].append(pool.workers[label].ask("round")["seconds"])
    for label in curves:
        pool.workers[label].ask("finish")
    return rows_of(network, pool, seconds, first), left_out, wrong


def measure_all(
    device: str, networks: Sequence[Network], *, rounds: int, round_seconds: float,
    keep: Callable[[Sequence[Row]], None],
) -> tuple[list[Row], list[str]]:  # fmt: skip
    """Rows of all networks, and what went wrong; one that fails takes no other with it. ``keep``: called with the
    rows so far, since whoever is stopped at a limit should have those."""
    rows: list[Row] = []
    failed: list[str] = []
    waiting = list(networks)
    while waiting:
        with Pool(entries(device)) as pool:
            for label, reason in pool.failed.items():
                print(f"left out: {label}: {reason}", flush=True)
            while waiting:
                network = waiting.pop(0)
                try:
                    found, left_out, wrong = measure(
                        network, pool, rounds=rounds, round_seconds=round_seconds
                    )
                except (AssertionError, WorkerError) as error:
                    failed.append(f"{network.name}: {error}")
                    print(f"FAILED {failed[-1]}", flush=True)
                    break  # workers are in the middle of that network: new ones for the next
                print(f"{network.name}: done", flush=True)
                for line in left_out:
                    print(f"left out: {line}", flush=True)
                for line in wrong:
                    print(f"FAILED {line}", flush=True)
                rows, failed = rows + found, failed + wrong
                keep(rows)
    return rows, failed


def rows_of(
    network: Network, pool: Pool, seconds: dict[str, list[float]], first: dict[str, float]
) -> list[Row]:
    ours = Row(network.name, "", tuple(next(iter(seconds.values())))).median
    rows = []
    for label, found in seconds.items():
        name = pool.workers[label].entry.contestant
        row = Row(network.name, name, tuple(found))
        extra: dict[str, Any] = {
            "first_step_s": round(first[label], 3),
            "over hotloop": round(row.median / ours, 3),
            "target": TARGETS.get(network.name, {}).get(name),
            "GFLOP/s": round(network.flops_per_step / row.median * 1e-9, 1),
        }
        rows.append(Row(network.name, name, row.seconds, extra))
    return rows


def report(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        target = "" if row.extra["target"] is None else f"{row.extra['target']:g}"
        lines.append(
            [row.setting, row.contestant, f"{row.median * 1e6:.1f}", f"{row.extra['over hotloop']:.2f}", target,
             f"{row.extra['first_step_s']:.2f}"]
        )  # fmt: skip
    return table(["network", "by", "us per step", "over hotloop", "target", "first step s"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "simt"), default="cuda")
    parser.add_argument("--save", action="store_true", help="write <date>-gpu_training.json")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for it")
    arguments = parser.parse_args()
    tiny = arguments.device == "simt"
    stamp = machine(describe(arguments.device, DeviceLimits(0.0, {})))

    def keep(rows: Sequence[Row]) -> None:
        if arguments.save:
            save("gpu_training", rows, stamp, arguments.out)

    rows, failed = measure_all(
        arguments.device, TINY if tiny else NETWORKS, rounds=2 if tiny else ROUNDS,
        round_seconds=1e-3 if tiny else ROUND_SECONDS, keep=keep,
    )  # fmt: skip
    print(report(rows))
    for line in failed:
        print(f"FAILED {line}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
