# SPDX-License-Identifier: Apache-2.0
"""Fused equals unfused: the same gradients, losses and predictions, with the expected nodes gone."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import pass_through
from hotloop.compile.plan import PlanSpec
from hotloop.graph import Graph, Node, Rows, TensorType
from hotloop.ops.elementwise import UNARY
from hotloop.ops.registry import RULES, GraphBuilder, rule_of
from tests.compile.graphs import ADAMW, LOSSES, batch, mlp, runner, train_spec

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
    # the gradient of affine is affine: it stays, and so does the dropout before it
    assert found.count(activation) == (activation == "affine")
    assert found.count("dropout") == (activation == "affine" and dropout > 0)


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
        "linear_grad_input",
        "linear_grad_weight",
        "unary_grad_fused",
        "linear_grad_weight",
    ]


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
    for activation, dropout, kind in itertools.product(UNARY, (0.0, 0.3), LOSSES):
        graph = mlp((4, 6, 3), activation, dropout, **attrs_of(activation))
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
