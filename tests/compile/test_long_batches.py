# SPDX-License-Identifier: Apache-2.0
"""Weight gradients of long batches are summed in parts, and that is all there is to see of it."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop.compile import compile_plan
from hotloop.compile.plan import Plan
from hotloop.graph import Affine
from hotloop.rules.matmul import PART_ROWS
from tests.compile.graphs import ADAMW, batch, mlp, runner, train_spec
from tests.compile.test_native import BACKENDS, Native, compare

SIZES = (5, 7, 3)


def kernels(plan: Plan) -> list[str]:
    return [step.kernel for step in plan.steps]


def parts_of(plan: Plan) -> set[Affine]:
    return {dict(step.fields)["parts"] for step in plan.steps if step.kernel == "matmul_parts"}  # type: ignore[misc]


@pytest.mark.parametrize(("rows", "parts"), [(PART_ROWS, 0), (PART_ROWS + 1, 2), (5 * PART_ROWS, 5)])
def test_parts_follow_from_the_longest_batch(rows: int, parts: int) -> None:
    plan = compile_plan(mlp(SIZES), train_spec(rows=rows, optimizer=ADAMW))
    assert kernels(plan).count("matmul_parts") == (2 if parts else 0)
    assert parts_of(plan) == ({Affine(0, parts)} if parts else set())


def test_large_weights_have_chunks_enough() -> None:
    plan = compile_plan(mlp((300, 300, 3)), train_spec(rows=4 * PART_ROWS, optimizer=ADAMW))
    assert kernels(plan).count("matmul_parts") == 1  # the last layer's


def test_a_device_cuts_products_itself() -> None:
    plan = compile_plan(mlp(SIZES), train_spec(rows=4 * PART_ROWS, optimizer=ADAMW, device="cuda"))
    assert "matmul_parts" not in kernels(plan)


def test_multiply_adds_are_counted_as_without_parts() -> None:
    short, long = (compile_plan(mlp(SIZES), train_spec(rows=rows)) for rows in (8, 4 * PART_ROWS))
    assert short.flops == long.flops
    counted = [step.flops for step in long.steps if step.kernel == "matmul_parts"]
    assert counted == [Affine(2 * 7 * 3, 0), Affine(2 * 5 * 7, 0)]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: f"{b[0]}-{b[1]}")
@pytest.mark.parametrize("rows", [1, PART_ROWS - 1, PART_ROWS, PART_ROWS + 1, 2500])
def test_training_equals_the_interpreter(rows: int, backend: tuple[str, str, float]) -> None:
    compare(mlp(SIZES), train_spec(rows=2500, optimizer=ADAMW), rows, backend)


@pytest.mark.parametrize("isa", [backend[1] for backend in BACKENDS if backend[0] == "float32"])
def test_the_longest_batch_of_a_plan_decides_on_no_bit(isa: str) -> None:
    graph, found = mlp((9, 33, 3)), []
    for most in (700, PART_ROWS, 2 * PART_ROWS, 5000):
        spec = train_spec(rows=most, optimizer=ADAMW, dtype="float32")
        oracle = runner(graph, spec)
        native = Native(graph, spec, oracle.plan, oracle, isa)
        params = np.array([0.01, 0.1] * oracle.plan.n_groups)
        native.run(700, batch(graph, spec, 700), params=params, seed=1, run=1, step=0)
        found.append((np.array(native.memory.parameters), np.array(native.memory.gradients)))
    for parameters, gradients in found[1:]:
        np.testing.assert_array_equal(parameters, found[0][0])
        np.testing.assert_array_equal(gradients, found[0][1])
