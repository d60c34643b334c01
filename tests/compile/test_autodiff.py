# SPDX-License-Identifier: Apache-2.0
"""Gradients of whole plans against central differences, and what differentiation leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop.compile import compile_uncached, param_layout, pass_through
from hotloop.compile.autodiff import add_gradients, differentiate
from hotloop.compile.plan import LossSpec, PlanSpec, TrainableSpec
from hotloop.errors import GraphError
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import LOSSES, batch, kernels, mlp, runner, train_spec


def check_gradient(graph: Graph, spec: PlanSpec, rows: int, **run: object) -> None:
    """Every entry of the gradient buffer against a central difference of the batch's loss."""
    run_plan = runner(graph, spec)
    inputs = batch(graph, spec, rows)
    parameters = run_plan.memory["parameter"]
    run_plan.run(rows, inputs, **run)  # type: ignore[arg-type]
    gradient = run_plan.memory["gradient"].copy()

    def loss() -> float:
        run_plan.run(rows, inputs, **run)  # type: ignore[arg-type]
        return float(run_plan.metric("batch_loss")[0])

    h = 1e-6
    for entry in param_layout(graph).entries:
        for i in range(entry.offset, entry.offset + entry.size):
            here = parameters[i]
            parameters[i] = here + h
            above = loss()
            parameters[i] = here - h
            below = loss()
            parameters[i] = here
            assert gradient[i] == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=2e-8), entry.name


SPECS = {
    **{kind: train_spec(kind) for kind in LOSSES},
    "weighted": train_spec("cross_entropy", weighted=True),
    "class weights, smoothing": train_spec(
        "cross_entropy",
        weighted=True,
        loss=LossSpec("cross_entropy", label_smoothing=0.1, class_weight=(0.3, 1.0, 2.0)),
    ),
    "probabilities": train_spec("cross_entropy", target="real", loss=LossSpec("cross_entropy", 0.3)),
    "huber delta": train_spec("huber", weighted=True, loss=LossSpec("huber", delta=0.3)),
    "pos_weight": train_spec("bce_with_logits", loss=LossSpec("bce_with_logits", pos_weight=(2.0, 1.0, 0.2))),
}


@pytest.mark.parametrize("name", SPECS)
def test_every_loss(name: str) -> None:
    check_gradient(mlp((4, 5, 3), "tanh"), SPECS[name], rows=5)


@pytest.mark.parametrize("activation", ["relu", "gelu", "elu"])
def test_dropout_repeats_its_mask_in_the_backward_pass(activation: str) -> None:
    attrs = {"p0": 1.0} if activation == "elu" else {}
    graph = mlp((4, 9, 5, 3), activation, dropout=0.4, **attrs)
    check_gradient(graph, train_spec("mse"), rows=5, params=np.array([0.4, 0.4]), seed=3, step=7)


def test_a_parameter_used_twice_gets_both_contributions() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    w = builder.parameter("w", (3, 3))
    (h,) = builder.emit("linear", x, w, None)
    (h,) = builder.emit("tanh", h)
    (h,) = builder.emit("linear", h, w, None)
    check_gradient(builder.build([("output", h)]), train_spec("mse"), rows=4)


def test_residuals_and_several_inputs() -> None:
    builder = GraphBuilder()
    a = builder.input("a", TensorType((Rows(), 3)))
    b = builder.input("b", TensorType((Rows(), 3)))
    (h,) = builder.emit("linear", a, builder.parameter("w", (3, 3)), builder.parameter("c", (3,)))
    (g,) = builder.emit("mul", h, b)
    (h,) = builder.emit("add", g, h)
    (h,) = builder.emit("mul", h, builder.parameter("scale", (3,)))
    check_gradient(builder.build([("output", h)]), train_spec("mse", weighted=True), rows=4)


def test_one_gradient_for_two_parameters_is_copied() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    (h,) = builder.emit("add", x, builder.parameter("a", (3,)))
    (h,) = builder.emit("add", h, builder.parameter("b", (3,)))
    graph = builder.build([("output", h)])
    assert "copy" in kernels(compile_uncached(graph, train_spec("mse")))
    check_gradient(graph, train_spec("mse"), rows=4)


def test_parameters_without_influence_get_zeros() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    unused = builder.parameter("unused", (2, 3))
    builder.emit("linear", x, unused, None)
    (h,) = builder.emit("mul", x, builder.parameter("scale", (3,)))
    graph = builder.build([("output", h)])
    run = runner(graph, train_spec("mse"))
    run.memory["gradient"][:] = 7.0
    run.run(4, batch(graph, train_spec("mse"), 4))
    assert not run.memory["gradient"][:6].any()
    assert run.memory["gradient"][16:19].all()


def test_the_first_layer_needs_no_input_gradient() -> None:
    graphs = dict(pass_through(mlp((4, 5, 6, 3)), train_spec("mse")))
    ops = [node.op for node in graphs["autodiff"].nodes]
    assert ops.count("linear_grad_weight") == 3
    assert ops.count("linear_grad_input") == 2


def test_gradients_of_inputs_can_be_asked_for() -> None:
    graph = mlp((4, 5, 3))
    (x,) = dict(graph.inputs).values()
    joined = GraphBuilder.extend(graph)
    dy = joined.input("doutput", graph.types[graph.output])
    result = differentiate(joined.build([]), {graph.output: dy}, wrt={"x": x}, keep={})
    ((name, value),) = result.outputs
    assert name == "grad:x"
    assert result.types[value] == graph.types[x]
    assert "linear_grad_weight" not in [node.op for node in result.nodes]


def test_labels_and_ids_are_never_differentiated() -> None:
    builder = GraphBuilder()
    ids = builder.input("ids", TensorType((Rows(), 2), "index"))
    (h,) = builder.emit("embedding", builder.parameter("weight", (5, 3)), ids)
    (h,) = builder.emit("sum", h, axes=(1,), keepdim=False)
    graph = builder.build([("output", h)])
    spec = train_spec("cross_entropy")
    run = runner(graph, spec)
    inputs = batch(graph, spec, 3) | {"ids": np.array([[0, 1], [1, 1], [4, 0]])}
    run.run(3, inputs)
    gradient = run.memory["gradient"][:15].reshape(5, 3)
    assert not gradient[[2, 3]].any()
    assert gradient[[0, 1, 4]].all()


def test_an_op_without_gradient_is_named() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    (h,) = builder.emit("mul", x, builder.parameter("scale", (3,)))
    (h,) = builder.emit("tanh_grad", h, h)
    with pytest.raises(GraphError, match="tanh_grad has no gradient"):
        compile_uncached(builder.build([("output", h)]), train_spec("mse"))


def test_vjp_equals_the_training_gradient() -> None:
    graph = mlp((4, 5, 3), "silu")
    spec, vjp = train_spec("mse"), PlanSpec("vjp", 6)
    train, parts = runner(graph, spec), runner(graph, vjp)
    inputs = batch(graph, spec, 6)
    train.run(6, inputs)
    output = parts.run(6, {"x": inputs["x"]}, section="forward")["output"].reshape(6, 3)
    parts.run(6, {"doutput": 2 * (output - inputs["target"]) / 18}, section="backward")
    np.testing.assert_allclose(parts.memory["gradient"], train.memory["gradient"], atol=1e-15)


def test_gradients_are_outputs_by_parameter_name() -> None:
    graphs = dict(pass_through(mlp((4, 5, 3)), train_spec("mse")))
    names = [name for name, _ in add_gradients(graphs["objective"]).outputs]
    assert names == ["total", "grad:0.weight", "grad:0.bias", "grad:2.weight", "grad:2.bias"]


def test_gradients_by_inputs_and_in_evaluation() -> None:
    builder = GraphBuilder()
    a = builder.input("a", TensorType((Rows(), 3)))
    b = builder.input("b", TensorType((Rows(), 4)))
    unused = builder.input("unused", TensorType((Rows(), 2)))
    (h,) = builder.emit("linear", a, builder.parameter("w", (4, 3)), None)
    (h,) = builder.emit("dropout", h, layer=0, p=0.5)
    (product,) = builder.emit("mul", h, b)
    (output,) = builder.emit("tanh", product)
    graph = builder.build([("output", output)])
    spec = PlanSpec(
        "vjp", 4, dtype="float64", input_gradients=("a", "b", "unused"), evaluated=True,
        trainable=TrainableSpec(frozen=("w",)),
    )  # fmt: skip
    run = runner(graph, spec)
    rng = np.random.default_rng(2)
    inputs = {
        "a": rng.standard_normal((4, 3)), "b": rng.standard_normal((4, 4)),
        "unused": np.zeros((4, 2)), "doutput": rng.standard_normal((4, 4)),
    }  # fmt: skip
    found = run.run(4, inputs, params=np.array([0.5]))
    assert found.keys() == {"output", "grad:input:a", "grad:input:b"}  # no way leads from the third
    # without dropout: y = tanh(b a w^T), dy/db = d (1 - y^2) a w^T
    w = run.memory["parameter"][:12].reshape(4, 3)
    inner = inputs["a"] @ w.T
    y = np.tanh(inputs["b"] * inner)
    d = inputs["doutput"] * (1 - y**2)
    np.testing.assert_allclose(found["output"].reshape(4, 4), y, rtol=1e-12)
    np.testing.assert_allclose(found["grad:input:b"].reshape(4, 4), d * inner, rtol=1e-12)
    np.testing.assert_allclose(found["grad:input:a"].reshape(4, 3), (d * inputs["b"]) @ w, rtol=1e-12)
    assert unused not in dict(run.plan.outputs).values()
