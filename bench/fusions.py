# SPDX-License-Identifier: Apache-2.0
"""What each fusion is worth: training steps with all of them, without one, and without any.

    python -m bench.fusions [--save] [--rounds N]

One thread, one plan per contestant, in turn within each round. Processor time, because what else the machine
does shall not count. A gain is the median over the rounds of the time without the fusion by the time with
it, so that both sides of a quotient lie close together in time.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop import _core
from hotloop.compile import compile_uncached, param_layout
from hotloop.compile.fuse import RULES
from hotloop.compile.plan import LossSpec, OptimizerSpec, PlanSpec
from hotloop.graph import Graph, Rows, TensorType
from hotloop.runtime.executable import native_plan
from hotloop.trace import trace

#: Seconds of one timing: long beside the clock and the call from Python, short beside a busy moment.
SLICE = 0.02
ADAMW = OptimizerSpec("adamw", beta1=0.9, beta2=0.999, eps=1e-8)


class Block(hl.nn.Module):
    """h + dropout(W2 gelu(W1 norm(h)))"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = hl.nn.LayerNorm(width)
        self.wide, self.narrow = hl.nn.Linear(width, 4 * width), hl.nn.Linear(4 * width, width)
        self.act, self.drop = hl.nn.GELU(), hl.nn.Dropout(0.1)

    def forward(self, h: Any) -> Any:
        return h + self.drop(self.narrow(self.act(self.wide(self.norm(h)))))


def mlp(*sizes: int, dropout: float = 0.0) -> hl.nn.Module:
    layers: list[hl.nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [hl.nn.Linear(fan_in, fan_out), hl.nn.ReLU()]
        layers += [hl.nn.Dropout(dropout)] if dropout else []
    return hl.nn.Sequential(*layers[: -2 if dropout else -1])


def residual(width: int, blocks: int) -> hl.nn.Module:
    return hl.nn.Sequential(*(Block(width) for _ in range(blocks)), hl.nn.Linear(width, 10))


@dataclass(frozen=True)
class Network:
    name: str
    model: Callable[[], hl.nn.Module]
    features: int
    batch: int


NETWORKS = (
    Network("64-128-10, batch 32", lambda: mlp(64, 128, 10), 64, 32),
    Network("28-300x5-2, dropout, batch 100", lambda: mlp(28, *[300] * 5, 2, dropout=0.1), 28, 100),
    Network("3 residual blocks of 256, batch 128", lambda: residual(256, 3), 256, 128),
    Network("1024-4096-1024, batch 512", lambda: mlp(1024, 4096, 1024), 1024, 512),
)


class Step:
    """One training step of a network on one thread, compiled with some of the fusions."""

    def __init__(self, graph: Graph, network: Network, fused: bool | tuple[str, ...]) -> None:
        spec = PlanSpec(
            "train", network.batch, loss=LossSpec("cross_entropy"), target="index", optimizer=ADAMW
        )
        plan = compile_uncached(graph, spec, fused=fused)
        layout = param_layout(graph)
        self.memory = _core.Memory(
            parameters=layout.size, state=0, counters=len(layout.entries), moments=2, dtype="float32"
        )
        rng = np.random.default_rng(0)
        self.memory.parameters[:] = rng.normal(0, 0.05, layout.size)
        self.program = _core.Program(native_plan(plan), self.memory, "")
        for name, buffer in plan.inputs:
            values = self.program.buffer(buffer, network.batch)
            values[:] = rng.integers(0, 2, values.size) if name == "target" else rng.normal(size=values.size)
        self.team, self.rows = _core.Team(1), network.batch
        self.params = np.array([1e-4, 0.0] + [0.1] * plan.n_dropout)
        self.n_steps = len(plan.steps)

    def run(self, times: int) -> float:
        """Processor seconds of one step, the mean of so many."""
        begin = time.thread_time()
        for _ in range(times):
            self.program.run(self.team, self.rows, params=self.params)
        return (time.thread_time() - begin) / times


def contestants(network: Network) -> dict[str, Step]:
    """All fusions, all but one, and none; each leaves the same bits after a step."""
    graph = trace(network.model(), {"x": TensorType((Rows(), network.features))})
    rules: dict[str, bool | tuple[str, ...]] = {"all": True}
    rules["all, again"] = True  # what two plans differ in by where their memory lies: the error of the rest
    rules |= {f"without {name}": tuple(r for r in RULES if r != name) for name in RULES}
    steps = {name: Step(graph, network, fused) for name, fused in (rules | {"none": False}).items()}
    for step in steps.values():
        step.run(1)
        np.testing.assert_array_equal(step.memory.parameters, steps["all"].memory.parameters)
    same = steps["all"].n_steps
    return {name: step for name, step in steps.items() if "all" in name or step.n_steps != same}


def measure(network: Network, rounds: int) -> list[Row]:
    steps = contestants(network)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        step.run(1)
        times = max(1, int(SLICE / step.run(3)))
        seconds[name].append(times)
    repeats = {name: int(values.pop()) for name, values in seconds.items()}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(step.run(repeats[name]))
    rows = []
    for name, series in seconds.items():
        ratios = [a / b for a, b in zip(series, seconds["all"], strict=True)]
        extra = {"gain": statistics.median(ratios) - 1, "steps": steps[name].n_steps}
        rows.append(Row(network.name, name, tuple(series), extra))
    return rows


def merged_update(rounds: int) -> list[Row]:
    """What AdamW inside the weight gradients' products could save of the largest network's step: the write of
    the gradients, and their reading in the update."""
    n, part = 1024 * 4096 * 2, 32768  # elements; a part's gradient stays in cache from one call to the next
    rng = np.random.default_rng(0)
    param, mean, square, grad = (rng.uniform(0.01, 0.1, n).astype(np.float32) for _ in range(4))
    scalars = np.array([0.0, 1e-3, 1e-2, 1.0, 1 - 0.9**10, (1 - 0.999**10) ** 0.5, 10.0, 1.0])
    hyper = {"scalars": scalars, "n": part, "decoupled": 1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

    def update(step: int) -> None:
        for begin in range(0, n, part):
            at, of = slice(begin, begin + part), slice(begin * step, begin * step + part)
            fields = {"param": param[at], "exp_avg": mean[at], "exp_avg_sq": square[at], "grad": grad[of]}
            _core.run_kernel("adam", {**fields, **hyper})

    work: dict[str, Callable[[], object]] = {
        "update, gradients in memory": lambda: update(1),
        "update, gradients in cache": lambda: update(0),
        "write of the gradients": lambda: _core.run_kernel("fill", {"out": grad, "n": n, "value": 0.05}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            begin = time.thread_time()
            run()
            seconds[name].append(time.thread_time() - begin)
    return [Row(NETWORKS[-1].name, name, tuple(series)) for name, series in seconds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="What each fusion is worth in a training step.")
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-fusions.json")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = [row for network in NETWORKS for row in measure(network, options.rounds)]
    rows += merged_update(options.rounds)
    lines = [
        [r.setting, r.contestant, f"{r.median * 1e6:.1f}"]
        + ([f"{100 * r.extra['gain']:+.1f} %", str(r.extra["steps"])] if r.extra else ["", ""])
        for r in rows
    ]
    print(table(["network", "fusions", "us per step", "slower by", "kernel calls"], lines))
    if options.save:
        print(save("fusions", rows, machine({"fma_gflops": _core.fma_peak_gflops(isa="", seconds=0.2)})))


if __name__ == "__main__":
    main()
