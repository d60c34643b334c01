# SPDX-License-Identifier: Apache-2.0
"""The interpreter against NumPy, and that it notices values used outside their life."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hotloop.compile import compile_uncached
from hotloop.compile.interpret import Interpreter, interpret, session_memory
from hotloop.compile.plan import PlanSpec
from hotloop.graph import Rows, TensorType
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import batch, mlp, runner, train_spec


@pytest.mark.parametrize("rows", [1, 3, 6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prediction(rows: int, dtype: str) -> None:
    graph = mlp((4, 5, 3), "tanh")
    spec = PlanSpec("predict", 6, dtype=dtype)  # type: ignore[arg-type]
    run = runner(graph, spec)
    x = batch(graph, spec, rows)["x"]
    p = run.memory["parameter"]
    w0, w1, b0, b1 = p[:20].reshape(5, 4), p[32:47].reshape(3, 5), p[48:53], p[64:67]
    expected = np.tanh(x @ w0.T + b0) @ w1.T + b1
    np.testing.assert_allclose(run.run(rows, {"x": x})["output"].reshape(rows, 3), expected)


def test_a_model_may_return_its_input() -> None:
    builder = GraphBuilder()
    graph = builder.build([("output", builder.input("x", TensorType((Rows(), 2))))])
    plan = compile_uncached(graph, PlanSpec("predict", 3))
    x = np.arange(6.0).reshape(3, 2)
    assert plan.steps == ()
    np.testing.assert_array_equal(interpret(plan, session_memory(graph), {"x": x}, 3)["output"], x.ravel())


def test_a_reshaped_output_is_the_same_memory() -> None:
    graph = mlp((4, 6))
    builder = GraphBuilder.extend(graph)
    (out,) = builder.emit("reshape", graph.output, shape=(("B", 1), 2, 3))
    reshaped = builder.build([("output", out)])
    spec = PlanSpec("predict", 4)
    inputs = batch(graph, spec, 4)
    assert len(compile_uncached(reshaped, spec).steps) == len(compile_uncached(graph, spec).steps)
    np.testing.assert_array_equal(
        runner(reshaped, spec).run(4, inputs)["output"], runner(graph, spec).run(4, inputs)["output"]
    )


def test_a_value_used_after_its_life_is_not_a_number() -> None:
    graph = mlp((4, 5, 3), "tanh")
    plan = compile_uncached(graph, train_spec("mse"))
    run = Interpreter(plan, session_memory(graph))
    run.memory["parameter"][:] = 0.5
    inputs = batch(graph, train_spec("mse"), 4)
    run.run(4, inputs)
    assert np.isfinite(run.memory["gradient"]).all()
    run.run(4, {}, section="backward")  # everything it reads died at the end of the step before
    assert np.isnan(run.memory["gradient"][:20]).all()


def test_a_buffer_read_past_the_rows_of_the_batch_is_an_error() -> None:
    graph = mlp((4, 3))
    plan = compile_uncached(graph, PlanSpec("predict", 6))
    step = plan.steps[-1]
    fields = dict(step.fields) | {"m": dict(step.fields)["m"].__class__(0, 6)}  # type: ignore[union-attr]
    broken = dataclasses.replace(
        plan, steps=(*plan.steps[:-1], dataclasses.replace(step, fields=tuple(fields.items())))
    )
    with pytest.raises((ValueError, IndexError)):
        Interpreter(broken, session_memory(graph)).run(3, {"x": np.ones((3, 4))})


@pytest.mark.parametrize("rows", [0, 7])
def test_rows_are_checked(rows: int) -> None:
    run = runner(mlp((4, 3)), PlanSpec("predict", 6))
    with pytest.raises(ValueError, match=f"rows must lie in 1 ... 6, got {rows}"):
        run.run(rows, {})
