# SPDX-License-Identifier: Apache-2.0
"""The fused functions beside torch's own, inside torch: python -m bench.torch_ops [--save]

Forward without gradients, and forward with backward, on one thread in alternating rounds; checked before timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

import hotloop.torch as ours
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits
from hotloop.runtime.threads import set_num_threads

F = torch.nn.functional
ROUNDS, SAMPLE_S = 15, 0.004
Case = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]]


def randn(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def cases() -> Iterator[Case]:
    """(name, ours, torch's, inputs that take gradients)"""
    for width in (128, 768):
        inputs = (randn(128, width), randn(width, width) / width**0.5, randn(width))
        yield (
            f"linear_gelu 128x{width}", ours.linear_gelu, lambda x, w, b: F.gelu(F.linear(x, w, b)), inputs
        )  # fmt: skip
    for rows, classes in ((4096, 1000), (128, 10)):
        labels = torch.arange(rows) * 7 % classes
        yield (
            f"cross_entropy {rows}x{classes}", lambda x, y=labels: ours.cross_entropy(x, y),
            lambda x, y=labels: F.cross_entropy(x, y), (randn(rows, classes),),
        )  # fmt: skip
    for rows, cols in ((4096, 1024), (32, 64)):
        yield (
            f"layer_norm {rows}x{cols}", lambda x, w, b: ours.layer_norm(x, w.shape, w, b),
            lambda x, w, b: F.layer_norm(x, w.shape, w, b), (randn(rows, cols), randn(cols), randn(cols)),
        )  # fmt: skip
    yield (
        "dropout 4096x1024", lambda x: ours.dropout(x, 0.1), lambda x: F.dropout(x, 0.1), (randn(4096, 1024),)
    )  # fmt: skip


def forward(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    def call() -> Any:
        with torch.no_grad():
            return function(*inputs)

    return call


def both(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[], Any]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    seed = torch.ones_like(function(*leaves))

    def call() -> Any:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).backward(seed)
        return leaves[0].grad

    return call


def measure(name: str, mine: Callable[[], Any], theirs: Callable[[], Any]) -> list[Row]:
    if not name.startswith("dropout"):
        torch.testing.assert_close(mine(), theirs(), rtol=1e-3, atol=1e-4)
    calls = {"hotloop": mine, "torch": theirs}
    repeats = {
        who: max(1, round(SAMPLE_S / min(sample(call, 1) for _ in range(3)))) for who, call in calls.items()
    }
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(ROUNDS):
        for who, call in calls.items():
            times[who].append(sample(call, repeats[who]))
    return [Row(name, who, tuple(found), {}) for who, found in times.items()]


def sample(call: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-torch_ops.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_num_threads(1)
    rows: list[Row] = []
    for name, mine, theirs, inputs in cases():
        rows += measure(f"{name}, forward", forward(mine, inputs), forward(theirs, inputs))
        rows += measure(f"{name}, with gradients", both(mine, inputs), both(theirs, inputs))
    best = {(row.setting, row.contestant): row.best for row in rows}
    lines = [
        [setting, f"{mine * 1e6:.1f}", f"{best[setting, 'torch'] / mine:.2f}"]
        for (setting, who), mine in best.items()
        if who == "hotloop"
    ]
    print(table(["function", "best us", "torch x"], lines))
    if arguments.save:
        print(f"saved {save('torch_ops', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
