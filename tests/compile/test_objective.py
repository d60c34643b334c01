# SPDX-License-Identifier: Apache-2.0
"""Losses, weights and statistics as the interpreter sees them, and every misfit refused with advice."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hotloop.compile import compile_uncached
from hotloop.compile.objective import join_objective
from hotloop.compile.plan import LossSpec, PlanSpec
from hotloop.errors import DTypeError, GraphError, HotloopError, ShapeError
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import batch, mlp, runner, train_spec


def passed_through(*shape: int | Rows) -> Graph:
    """A model that scales its input: the simplest with a given output shape."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType(shape))
    return builder.build([("output", builder.emit("mul", x, builder.parameter("scale", (1,)))[0])])


def test_the_inputs_and_outputs_of_each_mode() -> None:
    graph = mlp()
    weighted = train_spec("cross_entropy", weighted=True)
    assert [name for name, _ in join_objective(graph, weighted).inputs] == ["x", "target", "sample_weight"]
    assert [name for name, _ in join_objective(graph, train_spec("mse")).inputs] == ["x", "target"]
    assert [name for name, _ in join_objective(graph, weighted).outputs] == ["row_loss", "drow", "total"]
    vjp = join_objective(graph, PlanSpec("vjp", 4))
    assert [name for name, _ in vjp.inputs] == ["x", "doutput"]
    assert [name for name, _ in vjp.outputs] == ["output"]
    assert join_objective(graph, PlanSpec("eval", 4, loss=LossSpec("mse"))).outputs == ()


def test_targets_have_the_shape_of_the_output_or_are_labels() -> None:
    graph = passed_through(Rows(), 2, 3)
    joined = join_objective(graph, train_spec("mse"))
    assert joined.types[dict(joined.inputs)["target"]] == TensorType((Rows(), 2, 3))
    joined = join_objective(mlp(), train_spec("cross_entropy"))
    assert joined.types[dict(joined.inputs)["target"]] == TensorType((Rows(),), "index")
    joined = join_objective(mlp(), train_spec("cross_entropy", target="real"))
    assert joined.types[dict(joined.inputs)["target"]] == TensorType((Rows(), 3))


def test_the_loss_is_the_weighted_mean() -> None:
    graph = mlp((5, 7, 3))
    loss = LossSpec("cross_entropy", label_smoothing=0.2, class_weight=(0.5, 1.0, 3.0))
    spec = train_spec("cross_entropy", weighted=True, loss=loss, metrics=("accuracy",))
    run = runner(graph, spec)
    inputs = batch(graph, spec, 6)
    logits = runner(graph, PlanSpec("predict", 6)).run(6, inputs)["output"].reshape(6, 3)
    run.run(6, inputs)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    labels = inputs["target"]
    q = 0.8 * np.eye(3)[labels] + 0.2 / 3
    weight = inputs["sample_weight"] * np.array(loss.class_weight)[labels]
    np.testing.assert_allclose(run.metric("loss"), [(weight * -(q * log_p).sum(1)).sum(), weight.sum()])
    np.testing.assert_allclose(run.metric("batch_loss"), run.metric("loss")[0] / run.metric("loss")[1])
    np.testing.assert_array_equal(run.metric("accuracy"), [(logits.argmax(1) == labels).sum(), 6])


def test_statistics_add_up_over_batches() -> None:
    graph = mlp((5, 7, 3))
    spec = train_spec("mse", metrics=("regression",))
    run = runner(graph, spec)
    inputs = batch(graph, spec, 6)
    run.run(6, inputs)
    once = run.metric("regression")
    run.run(6, inputs)
    np.testing.assert_allclose(run.metric("regression"), 2 * once)
    assert once[0] == 6
    np.testing.assert_allclose(once[1:].reshape(3, 4)[:, 2], inputs["target"].sum(0))
    run.reset_metrics()
    assert not run.metrics.any()


def test_positive_weights_scale_the_positive_part() -> None:
    graph = mlp((5, 7, 3))
    spec = train_spec("bce_with_logits", loss=LossSpec("bce_with_logits", pos_weight=(2.0, 1.0, 0.5)))
    run = runner(graph, spec)
    inputs = batch(graph, spec, 6) | {"target": np.ones((6, 3))}
    z = runner(graph, PlanSpec("predict", 6)).run(6, inputs)["output"].reshape(6, 3)
    run.run(6, inputs)
    expected = (np.log1p(np.exp(-z)) * [2.0, 1.0, 0.5]).mean(1).sum()
    np.testing.assert_allclose(run.metric("loss")[0], expected)


@pytest.mark.parametrize(
    ("graph", "spec", "error", "message"),
    [
        (mlp((5, 1)), train_spec("cross_entropy"), ShapeError, "C >= 2.*bce_with_logits"),
        (passed_through(Rows(), 2, 3), train_spec("cross_entropy"), ShapeError, r"\(B, 2, 3\).*\(B, C\)"),
        (passed_through(Rows(2), 3), train_spec("mse"), ShapeError, r"one entry per row"),
        (passed_through(2, Rows()), train_spec("mse"), ShapeError, r"first dimension"),
        (mlp(), train_spec("mse", target="index"), DTypeError, "float32"),
        (mlp(), train_spec("mse", loss=None), GraphError, "needs a loss"),
        (mlp(), train_spec("l1"), GraphError, "unknown loss 'l1'; allowed: cross_entropy, mse"),
        (
            mlp(),
            train_spec("mse", metrics=("accuracy",)),
            GraphError,
            "'accuracy' does not fit the loss 'mse'",
        ),
        (mlp(), train_spec("cross_entropy", metrics=("regression",)), GraphError, "does not fit"),
        (mlp(), train_spec("mse", metrics=("f1",)), GraphError, "'f1' does not fit"),
        (mlp(), train_spec("mse", loss=LossSpec("mse", class_weight=(1.0,) * 3)), GraphError, "class labels"),
        (
            mlp(),
            train_spec(
                "cross_entropy", target="real", loss=LossSpec("cross_entropy", class_weight=(1.0,) * 3)
            ),
            GraphError,
            "needs class labels",
        ),
        (
            mlp(),
            train_spec("cross_entropy", loss=LossSpec("cross_entropy", class_weight=(1.0, 2.0))),
            ShapeError,
            "got 2 values; the model has 3",
        ),
        (mlp(), train_spec("mse", loss=LossSpec("mse", pos_weight=(1.0,) * 3)), GraphError, "pos_weight"),
        (mlp(), PlanSpec("predict", 0), GraphError, "max_rows must be at least 1, got 0"),
    ],
)
def test_misfits(graph: Graph, spec: PlanSpec, error: type[HotloopError], message: str) -> None:
    with pytest.raises(error, match=message):
        compile_uncached(graph, spec)


def test_an_input_may_not_take_a_name_of_the_plan() -> None:
    builder = GraphBuilder()
    x = builder.input("target", TensorType((Rows(), 2)))
    graph = builder.build([("output", builder.emit("tanh", x)[0])])
    with pytest.raises(GraphError, match=re.escape("rename forward's argument")):
        compile_uncached(graph, train_spec("mse"))
