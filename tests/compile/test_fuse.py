# SPDX-License-Identifier: Apache-2.0
"""Fused equals unfused: the same gradients, losses and predictions, with the expected nodes gone."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import compile_uncached, pass_through
from hotloop.compile.fuse import RULES as FUSIONS
from hotloop.compile.fuse import fuse
from hotloop.compile.plan import PlanSpec
from hotloop.graph import Graph, Node, Rows, TensorType
from hotloop.rules.elementwise import UNARY
from hotloop.rules.registry import RULES, GraphBuilder, rule_of
from tests.compile.graphs import ADAMW, LOSSES, batch, kernels, mlp, runner, train_spec

NORMS = (None, "rms_norm", "layer_norm")
P0_P1 = {"leaky_relu": (0.1,), "elu": (1.3,), "softplus": (2.0, 20.0), "affine": (0.5, 0.1)}


def attrs_of(activation: str) -> dict[str, float]:
    return dict(zip(("p0", "p1"), P0_P1.get(activation, ()), strict=False))


def ops(graph: Graph, spec: PlanSpec) -> list[str]:
    *_, (_, final) = pass_through(graph, spec)
    return [node.op for node in final.nodes]


def same_results(graph: Graph, spec: PlanSpec, rows: int, seed: int = 0) -> None:
    runs = [runner(graph, spec, fused=fused) for fused in (True, False)]
    layers = runs[0].plan.n_dropout
    params = np.array([0.01, 0.1] * runs[0].plan.n_groups + [0.3] * layers)
    for run in runs:
        run.memory["parameter"][:] = np.abs(run.memory["parameter"])  # log and sqrt need positive arguments
        run.run(
            rows, {k: np.abs(v) for k, v in batch(graph, spec, rows, seed).items()}, params=params, seed=seed
        )
    fused, plain = runs
    for kind in fused.memory:
        np.testing.assert_allclose(
            fused.memory[kind], plain.memory[kind], rtol=1e-9, atol=1e-12, err_msg=kind
        )
    np.testing.assert_allclose(fused.metrics, plain.metrics, rtol=1e-12)
    assert np.isfinite(fused.memory["gradient"]).all()


@pytest.mark.parametrize("activation", UNARY)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_activation(activation: str, dropout: float) -> None:
    graph = mlp((4, 6, 3), activation, dropout, **attrs_of(activation))
    same_results(graph, train_spec("mse", rows=5), rows=5)
    found = ops(graph, train_spec("mse"))
    assert found.count("linear_fused") == 1
    # the gradient of affine is affine: it stays on its own
    assert found.count(activation) == (activation == "affine")
    assert "dropout" not in found
    assert found.count("input_grad_fused") == (activation != "affine" or dropout > 0)


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_is_one_kernel(kind: str) -> None:
    graph = mlp((4, 6, 3))
    spec = train_spec(kind, weighted=True)
    found = ops(graph, spec)
    assert f"{kind}_fused" in found
    assert not {kind, f"{kind}_grad"} & set(found)
    same_results(graph, spec, rows=5)


def test_a_training_step_of_an_mlp() -> None:
    assert ops(mlp((4, 6, 3), "relu", 0.1), train_spec("cross_entropy")) == [
        "linear_fused",
        "linear",
        "row_weight",
        "cross_entropy_fused",
        "loss_stats",
        "input_grad_fused",
        "linear_grad_weight",
        "linear_grad_weight",
    ]


def after_matmul(activation: str, dropout: float) -> Graph:
    """A product with a matrix that lies untransposed, so that its gradient is a linear layer; then a norm,
    so that the gradient before it comes from no product."""
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 4)))
    for layer, width in enumerate((4, 5)):
        (h,) = builder.emit("matmul", h, builder.parameter(f"w{layer}", (width, 5)))
        (h,) = builder.emit(activation, h)
        if dropout:
            (h,) = builder.emit("dropout", h, layer=layer, p=dropout)
    (h,) = builder.emit("rms_norm", h, None, n_axes=1, eps=1e-5)[:1]
    return builder.build([("output", h)])


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_matmul(activation: str, dropout: float) -> None:
    graph = after_matmul(activation, dropout)
    same_results(graph, train_spec("mse"), rows=4)
    found = ops(graph, train_spec("mse"))
    assert found.count("input_grad_fused") == 1
    assert found.count("unary_grad_fused" if dropout else f"{activation}_grad") == 1


def test_dropout_of_a_layer_without_activation() -> None:
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 4)))
    for layer in (0, 1):
        weight = builder.parameter(f"w{layer}", (4, 4))
        (h,) = builder.emit("linear", h, weight, builder.parameter(f"b{layer}", (4,)))
        (h,) = builder.emit("dropout", h, layer=layer, p=0.3)
    graph = builder.build([("output", h)])
    same_results(graph, train_spec("mse"), rows=4)
    found = ops(graph, train_spec("mse"))
    # the dropout of the last gradient follows the loss, not a product
    assert [found.count(op) for op in ("linear_fused", "input_grad_fused", "dropout")] == [2, 1, 1]


@pytest.mark.parametrize("read", ["dy", "dz"])
def test_a_gradient_that_others_read_stays_apart(read: str) -> None:
    """x -> linear -> tanh -> linear, and one of the gradients in between once more, in the output."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 4)))
    y = builder.input("y", TensorType((Rows(), 3)))
    weight = builder.parameter("w", (4, 3))
    (dy,) = builder.emit("linear_grad_input", x, weight)
    (dropped,) = builder.emit("dropout", dy, layer=0, p=0.3)
    (dz,) = builder.emit("tanh_grad", dropped, y)
    (out,) = builder.emit("add", {"dy": dy, "dz": dz}[read], dz)
    fused = [node.op for node in fuse(builder.build([("output", out)])).nodes]
    assert (
        fused
        == {
            "dy": ["linear_grad_input", "unary_grad_fused", "add"],
            "dz": ["input_grad_fused", "add"],
        }[read]
    )


def test_only_the_rules_that_are_named() -> None:
    graph, spec = mlp((4, 6, 3), "relu", 0.1), train_spec("cross_entropy")
    plain = kernels(compile_uncached(graph, spec, fused=False))
    assert kernels(compile_uncached(graph, spec, fused=())) == plain
    one = kernels(compile_uncached(graph, spec, fused=("bias_grad",)))
    assert plain.count("reduce_sum") == 2
    assert one == [name for name in plain if name != "reduce_sum"]
    assert kernels(compile_uncached(graph, spec, fused=tuple(FUSIONS))) == kernels(
        compile_uncached(graph, spec)
    )


def residual(activation: str, dropout: float, *, norm: str | None = None) -> Graph:
    """Two blocks of h + dropout(f(linear(norm(h)))), and a head."""
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 5)))
    for layer in range(3):
        width = 3 if layer == 2 else 5
        branch = h
        if norm:
            parameters = [builder.parameter(f"norm{layer}", (5,)), None][: 2 if norm == "layer_norm" else 1]
            branch = builder.emit(norm, h, *parameters, n_axes=1, eps=1e-5)[0]
        weight, bias = builder.parameter(f"w{layer}", (width, 5)), builder.parameter(f"b{layer}", (width,))
        (branch,) = builder.emit("linear", branch, weight, bias)
        if layer < 2:
            (branch,) = builder.emit(activation, branch)
            (branch,) = builder.emit("dropout", branch, layer=layer, p=dropout)
            (branch,) = builder.emit("add", h, branch)
        h = branch
    return builder.build([("output", h)])


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("norm", NORMS)
def test_residual_connections(activation: str, norm: str | None) -> None:
    graph = residual(activation, 0.3, norm=norm)
    same_results(graph, train_spec("mse"), rows=4)
    found = ops(graph, train_spec("mse"))
    assert "add" not in found
    assert found.count("norm_grad_fused") == (1 if norm else 0)  # x needs no gradient
    assert found.count("linear_fused") == 2


def test_a_residual_that_comes_from_the_product_stays_apart() -> None:
    """z + gelu(z): gelu's gradient reads z, so z is an output of the fused layer beside gelu(z)."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    (z,) = builder.emit("linear", x, builder.parameter("w", (3, 3)), None)
    (y,) = builder.emit("gelu", z)
    (s,) = builder.emit("sigmoid", z)
    graph = builder.build([("output", builder.emit("add", y, s)[0])])
    same_results(graph, train_spec("mse"), rows=4)
    assert "add" in ops(graph, train_spec("mse"))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,)])
def test_a_sum_that_broadcasts_stays_apart(shape: tuple[int, ...]) -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 4)))
    (z,) = builder.emit("linear", x, builder.parameter("w", (3, 4)), None)
    graph = builder.build([("output", builder.emit("add", z, builder.parameter("c", shape))[0])])
    same_results(graph, train_spec("mse"), rows=4)
    assert ops(graph, PlanSpec("predict", 4)) == ["linear", "add"]


def fused_linear(graph: Graph, spec: PlanSpec) -> Node:
    *_, (_, final) = pass_through(graph, spec)
    return next(node for node in final.nodes if node.op == "linear_fused")


@pytest.mark.parametrize(
    ("activation", "dropout", "saves"),
    [
        ("gelu", 0.0, True),  # the gradient reads z
        ("gelu", 0.3, True),
        ("tanh", 0.0, False),  # ... reads y, which is the output
        ("tanh", 0.3, True),  # ... reads y, which dropout hides
        ("relu", 0.3, False),  # ... reads a sign, which dropout keeps
    ],
)
def test_what_is_saved(activation: str, dropout: float, saves: bool) -> None:
    graph = mlp((4, 6, 3), activation, dropout)
    assert fused_linear(graph, train_spec("mse")).attr["save"] is saves
    assert fused_linear(graph, PlanSpec("predict", 4)).attr["save"] is False


def branching(activation: str, *, read: str) -> Graph:
    """linear -> activation -> dropout, where z or y is also read by the output."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 4)))
    (z,) = builder.emit("linear", x, builder.parameter("w", (3, 4)), builder.parameter("b", (3,)))
    (y,) = builder.emit(activation, z)
    (d,) = builder.emit("dropout", y, layer=0, p=0.3)
    (out,) = builder.emit("add", d, {"z": z, "y": y}[read])
    return builder.build([("output", out)])


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("read", ["z", "y"])
def test_values_that_others_read_are_still_written(activation: str, read: str) -> None:
    same_results(branching(activation, read=read), train_spec("mse"), rows=4)


def test_an_intermediate_that_is_the_output_is_still_written() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 4)))
    (z,) = builder.emit("linear", x, builder.parameter("w", (3, 4)), None)
    builder.emit("tanh", z)
    graph = builder.build([("output", z)])
    same_results(graph, train_spec("mse"), rows=4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([*UNARY, "dropout", "linear", "residual"]), min_size=1, max_size=7),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
def test_random_chains(steps: list[str], rows: int, seed: int) -> None:
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 3)))
    layer = 0
    for i, step in enumerate(["linear", *steps]):
        if step == "linear":
            (h,) = builder.emit(
                "linear", h, builder.parameter(f"w{i}", (3, 3)), builder.parameter(f"b{i}", (3,))
            )
        elif step == "dropout":
            (h,) = builder.emit("dropout", h, layer=layer, p=0.3)
            layer += 1
        elif step == "residual":
            (branch,) = builder.emit("relu", h)
            (h,) = builder.emit("add", h, branch)
        else:
            (h,) = builder.emit("sigmoid", h)  # keeps chains of exp and square in range
            (h,) = builder.emit(step, h, **attrs_of(step))
            (h,) = builder.emit("affine", h, p0=0.5, p1=0.6)
    graph = builder.build([("output", h)])
    spec = train_spec("huber", rows=6, weighted=True, optimizer=dataclasses.replace(ADAMW, decay="weights"))
    same_results(graph, spec, rows, seed)


def fused_nodes() -> list[tuple[Node, Graph]]:
    """Every kind of node that fusion makes, beside its graph, from compiled models."""
    found = []
    graphs = [
        mlp((4, 6, 3), activation, dropout, **attrs_of(activation))
        for activation, dropout in itertools.product(UNARY, (0.0, 0.3))
    ]
    graphs += [after_matmul(activation, 0.3) for activation in ("relu", "gelu")]
    graphs += [residual("gelu", 0.3, norm=norm) for norm in NORMS]
    for graph, kind in itertools.product(graphs, LOSSES):
        *_, (_, final) = pass_through(graph, train_spec(kind))
        found += [(node, final) for node in final.nodes if node.op.endswith("_fused")]
    return found


def test_references_make_the_types_of_what_they_stand_for() -> None:
    seen = set()
    for node, graph in fused_nodes():
        seen.add(node.op)
        builder = GraphBuilder()
        builder.types = list(graph.types)
        reference = rule_of(node.op).reference
        assert reference is not None
        values = reference(builder, node)
        assert [builder.type(v) for v in values] == [graph.types[v] for v in node.outputs]
        assert not any(made.op.endswith("_fused") for made in builder.nodes)
    assert seen == {name for name in RULES if name.endswith("_fused")}
