# SPDX-License-Identifier: Apache-2.0
"""What the ops lower to, run natively: the interpreter's results, and the same bits however B is laid out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from hotloop import _core
from hotloop.compile.plan import Plan
from hotloop.graph import Graph, TensorType
from hotloop.nn import functional as F
from hotloop.rules import matmul
from hotloop.runtime.executable import native_plan
from hotloop.trace import trace
from tests.rules.op_cases import CASES, DROP, B, Case, draw, gradient_of, graph_of, interpret, plan_of

DType = Literal["float32", "float64"]


def run(graph: Graph, rows: int, arrays: dict[str, np.ndarray], dtype: DType) -> tuple[Plan, np.ndarray]:
    plan = plan_of(graph, rows, dtype)
    memory = _core.Memory(parameters=0, state=0, counters=0, moments=0, dtype=dtype)
    program = _core.Program(native_plan(plan), memory, "generic" if dtype == "float64" else "")
    for name, buffer in plan.inputs:
        if name in arrays:
            program.buffer(buffer, rows)[...] = arrays[name].reshape(-1)
    program.run(_core.Team(2), rows, params=DROP)
    return plan, np.array(program.buffer(dict(plan.outputs)["output"], rows))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 2e-5)])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_native_is_what_the_interpreter_says(case: Case, dtype: DType, tolerance: float) -> None:
    rows = 5
    graph, arrays = graph_of(case), draw(case, rows)
    expected = interpret(plan_of(graph, rows), graph, rows, arrays)
    found = run(graph, rows, arrays, dtype)[1]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    arrays["dy"] = np.random.default_rng(1).standard_normal(expected.size)
    for name in case.operands:
        gradient = gradient_of(graph, name)
        expected = interpret(plan_of(gradient, rows), gradient, rows, arrays)
        found = run(gradient, rows, arrays, dtype)[1]
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", ["x", "w"])
def test_packing_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"x": TensorType((B, 37)), "w": TensorType((21, 37))}
    gradient = gradient_of(trace(lambda x, w: F.linear(x, w), types), name)
    rng = np.random.default_rng(0)
    rows = 29
    sizes = {"x": (rows, 37), "w": (21, 37), "dy": (rows, 21)}
    arrays = {key: rng.standard_normal(size).astype(np.float32) for key, size in sizes.items()}
    plan, direct = run(gradient, rows, arrays, "float32")
    monkeypatch.setattr(matmul, "PACK_MIN_COLS", 1)
    monkeypatch.setattr(matmul, "PACK_MIN_ROWS", 1)
    packed_plan, packed = run(gradient, rows, arrays, "float32")
    assert [s.kernel for s in plan.steps] == ["matmul"]
    assert [s.kernel for s in packed_plan.steps] == ["pack_panels", "matmul"]
    np.testing.assert_array_equal(direct, packed)
