# SPDX-License-Identifier: Apache-2.0
"""Training steps beside torch, scikit-learn and the machine's own limit: pytest bench/train.py

One test per problem. Before anything is timed, the losses of an epoch must equal torch's from the same
weights. Then every round runs all contestants in turn (pytest-benchmark times ours, its set-up the others).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench._harness import Row, one_round, settle
from bench.conftest import Limits
from bench.peers import PROBLEMS, Problem, contestants, hotloop_losses, hotloop_run, torch_losses

ROUNDS = 21
THREADS = min(2, len(os.sched_getaffinity(0)))


def check_against_torch(problem: Problem) -> None:
    state, ours = hotloop_losses(problem)
    assert ours[-1] < ours[0]
    if importlib.util.find_spec("torch"):
        # float32 rounding, grown over the steps of an epoch
        np.testing.assert_allclose(ours, torch_losses(problem, state), rtol=1e-3, atol=1e-4)


def best_threads(times: dict[str, list[float]]) -> dict[str, tuple[str, list[float]]]:
    """`name / threads` -> the thread count with the smaller median, by name."""
    best: dict[str, tuple[str, list[float]]] = {}
    for key, seconds in times.items():
        name, threads = key.split(" / ")
        if name not in best or np.median(seconds) < np.median(best[name][1]):
            best[name] = (threads, seconds)
    return best


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_training_step(
    problem: Problem, benchmark: BenchmarkFixture, limits: Limits, add_row: Callable[[Row], None]
) -> None:
    check_against_torch(problem)
    ours = hotloop_run(problem)
    peers = contestants(problem, THREADS)
    times: dict[str, list[float]] = {}
    one_round({"hotloop": ours, **peers}, {})  # warm up

    benchmark.group = "training step"

    def peers_first() -> None:
        one_round(peers, times)
        settle()

    benchmark.pedantic(ours, setup=peers_first, rounds=ROUNDS, iterations=1)
    seconds = benchmark.stats.stats.data

    steps = problem.steps * problem.epochs
    floor = problem.flops_per_step / (limits.fma_gflops * 1e9)
    add_row(Row(problem.name, "arithmetic floor, one core", (floor,)))
    add_row(Row(problem.name, "hotloop", tuple(s / steps for s in seconds), {"threads": "auto"}))
    for name, (threads, series) in best_threads(times).items():
        add_row(Row(problem.name, name, tuple(s / steps for s in series), {"threads": threads}))
