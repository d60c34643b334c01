# SPDX-License-Identifier: Apache-2.0
"""Every simplification, one by one."""

from __future__ import annotations

import pytest

from hotloop.compile.rewrite import drop_dead, in_order
from hotloop.compile.simplify import simplify
from hotloop.graph import Graph, Node, Rows, TensorType
from hotloop.rules.dims import shape_to_attr
from hotloop.rules.registry import GraphBuilder


def one_input() -> tuple[GraphBuilder, int]:
    builder = GraphBuilder()
    return builder, builder.input("x", TensorType((Rows(), 2, 3)))


def done(builder: GraphBuilder, *values: int) -> Graph:
    return simplify(builder.build([(f"o{i}", value) for i, value in enumerate(values)]))


def test_affine_of_affine_is_affine() -> None:
    builder, x = one_input()
    (y,) = builder.emit("affine", x, p0=2.0, p1=1.0)
    (z,) = builder.emit("affine", y, p0=3.0, p1=-1.0)
    (node,) = done(builder, z).nodes
    assert (node.op, node.inputs, node.attr) == ("affine", (x,), {"p0": 6.0, "p1": 2.0})


def test_double_negation_vanishes() -> None:
    builder, x = one_input()
    (y,) = builder.emit("affine", x, p0=-1.0, p1=0.0)
    (z,) = builder.emit("affine", y, p0=-1.0, p1=0.0)
    (w,) = builder.emit("tanh", z)
    (node,) = done(builder, w).nodes
    assert (node.op, node.inputs) == ("tanh", (x,))


def test_times_one_plus_zero_vanishes() -> None:
    builder, x = one_input()
    (y,) = builder.emit("affine", x, p0=1.0, p1=0.0)
    graph = done(builder, y)
    assert graph.nodes == ()
    assert graph.outputs == (("o0", x),)


@pytest.mark.parametrize(("op", "number"), [("add", 0.0), ("sub", 0.0), ("mul", 1.0), ("div", 1.0)])
@pytest.mark.parametrize("right", [True, False])
def test_neutral_constants(op: str, number: float, right: bool) -> None:
    builder, x = one_input()
    (c,) = builder.emit("constant", values=(number,) * 3, shape=(3,))
    graph = done(builder, *builder.emit(op, *((x, c) if right else (c, x))))
    vanishes = right or op in ("add", "mul")
    assert (graph.nodes == ()) is vanishes


def test_a_neutral_constant_that_widens_stays() -> None:
    builder, x = one_input()
    (row,) = builder.emit("sum", x, axes=(0,), keepdim=True)
    (c,) = builder.emit("constant", values=(0.0,) * 24, shape=(4, 2, 3))
    graph = done(builder, *builder.emit("add", row, c))
    assert [node.op for node in graph.nodes] == ["sum", "constant", "add"]


def test_reshapes_collapse() -> None:
    builder, x = one_input()
    (y,) = builder.emit("reshape", x, shape=shape_to_attr((Rows(), 6)))
    (z,) = builder.emit("reshape", y, shape=shape_to_attr((Rows(), 3, 2)))
    (back,) = builder.emit("reshape", z, shape=shape_to_attr((Rows(), 2, 3)))
    graph = done(builder, z, back)
    assert [(node.op, node.inputs) for node in graph.nodes] == [("reshape", (x,))]
    assert dict(graph.outputs)["o1"] == x


def test_transposes_compose() -> None:
    builder, x = one_input()
    (y,) = builder.emit("transpose", x, perm=(0, 2, 1))
    (same,) = builder.emit("transpose", y, perm=(0, 2, 1))
    (other,) = builder.emit("transpose", y, perm=(2, 0, 1))
    graph = done(builder, same, other)
    (node,) = graph.nodes
    # axis 0 of `other` is axis 2 of y, which is axis 1 of x
    assert (node.inputs, node.attr["perm"]) == ((x,), (1, 0, 2))
    assert graph.types[node.outputs[0]] == builder.type(other)
    assert dict(graph.outputs)["o0"] == x


def test_copies_vanish() -> None:
    builder, x = one_input()
    assert done(builder, *builder.emit("copy", x)).nodes == ()


def test_equal_nodes_are_one() -> None:
    builder, x = one_input()
    (a,), (b,) = builder.emit("tanh", x), builder.emit("tanh", x)
    graph = done(builder, *builder.emit("add", a, b))
    assert [(node.op, node.inputs) for node in graph.nodes] == [("tanh", (x,)), ("add", (a, a))]


def test_other_attributes_are_other_nodes() -> None:
    builder, x = one_input()
    a = builder.emit("dropout", x, layer=0, p=0.5) + builder.emit("dropout", x, layer=1, p=0.5)
    assert len(done(builder, *a).nodes) == 2


def test_nodes_that_update_states_are_not_merged() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    w, b = builder.parameter("w", (3,)), builder.parameter("b", (3,))
    mean, var = builder.state("m", (3,)), builder.state("v", (3,))
    outs = [builder.emit("batch_norm_train", x, w, b, mean, var, eps=1e-5, momentum=0.1)[0] for _ in range(2)]
    assert [node.op for node in done(builder, *outs).nodes] == ["batch_norm_train"] * 2


def test_dead_code_goes_and_side_effects_stay() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    (y,) = builder.emit("tanh", x)
    builder.emit("exp", x)
    builder.emit("regression_stats", y, x)
    graph = drop_dead(builder.build([]))
    assert [node.op for node in graph.nodes] == ["tanh", "regression_stats"]


def test_order_moves_only_what_must_move() -> None:
    nodes = [Node("c", (2,), (3,)), Node("a", (0,), (1,)), Node("b", (1,), (2,)), Node("d", (0,), (4,))]
    assert [node.op for node in in_order(nodes)] == ["a", "b", "c", "d"]
    assert in_order(nodes[1:]) == nodes[1:]
