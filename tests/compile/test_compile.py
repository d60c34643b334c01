# SPDX-License-Identifier: Apache-2.0
"""The compiler as a whole: cached by value, quick, and every pass verified."""

from __future__ import annotations

import dataclasses
import time

import pytest

from hotloop.compile import compile_plan, compile_uncached, pass_through
from hotloop.compile.cache import MAX_PLANS
from hotloop.compile.plan import PlanSpec
from hotloop.graph import graph_from_json, graph_to_json
from tests.compile.graphs import ADAMW, kernels, mlp, train_spec

SPEC = train_spec("cross_entropy", rows=32, optimizer=ADAMW, metrics=("accuracy",))


def test_equal_graphs_share_a_plan() -> None:
    graph = mlp((64, 128, 10), "relu", 0.1)
    clone = graph_from_json(graph_to_json(graph))
    assert clone is not graph
    assert compile_plan(clone, SPEC) is compile_plan(graph, SPEC)
    assert compile_plan(graph, dataclasses.replace(SPEC, max_rows=33)) is not compile_plan(graph, SPEC)


def test_the_cache_is_bounded() -> None:
    graph = mlp((2, 2))
    first = compile_plan(graph, PlanSpec("predict", 1))
    for rows in range(2, MAX_PLANS + 2):
        compile_plan(graph, PlanSpec("predict", rows))
    assert compile_plan(graph, PlanSpec("predict", 1)) is not first


def test_compiling_twice_gives_the_same_plan() -> None:
    graph = mlp((64, 128, 10), "gelu", 0.1)
    assert compile_uncached(graph, SPEC) == compile_uncached(graph, SPEC)


def test_passes_come_in_order() -> None:
    names = [name for name, _ in pass_through(mlp(), SPEC)]
    assert names == ["trace", "specialize", "objective", "autodiff", "simplify", "fuse"]
    assert "autodiff" not in [name for name, _ in pass_through(mlp(), PlanSpec("predict", 1))]


@pytest.mark.parametrize(
    ("mode", "sections"),
    [
        ("train", ["forward", "backward", "update"]),
        ("vjp", ["forward", "backward", "update"]),
        ("eval", ["prepare", "forward"]),
        ("predict", ["prepare", "forward"]),
    ],
)
def test_sections_of_each_mode(mode: str, sections: list[str]) -> None:
    plan = compile_uncached(mlp(), dataclasses.replace(SPEC, mode=mode))  # type: ignore[arg-type]
    assert [name for name, _, _ in plan.sections] == sections
    assert plan.n_groups == (1 if "update" in sections else 0)
    assert [name for name, _ in plan.outputs] == (["output"] if mode in ("vjp", "predict") else [])


def test_evaluation_has_no_dropout_and_keeps_nothing_for_a_gradient() -> None:
    graph = mlp((5, 7, 3), "gelu", 0.5)
    plan = compile_uncached(graph, dataclasses.replace(SPEC, mode="eval"))
    layers = ["pack_panels", "pack_panels", "matmul", "matmul"]
    assert kernels(plan) == [*layers, "row_weight", "cross_entropy", "loss_stats", "accuracy"]
    products = [dict(step.fields) for step in plan.steps if step.kernel == "matmul"]
    assert all(fields["saved"] is None and fields["dropout"] == -1 for fields in products)
    assert (plan.n_dropout, compile_uncached(graph, SPEC).n_dropout) == (0, 1)


def test_time_grows_with_the_model_and_not_faster() -> None:
    def seconds(depth: int) -> float:
        graph = mlp((8, *[8] * depth, 10), "relu")
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            compile_uncached(graph, SPEC)
            best = min(best, time.process_time() - begin)
        return best

    # sixteen times the layers: sixteen times the work, with room for a pass that sorts and for noise
    assert seconds(160) < 3 * 16 * max(seconds(10), 1e-3)
