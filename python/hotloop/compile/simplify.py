# SPDX-License-Identifier: Apache-2.0
"""Make the graph smaller without changing what it computes.

Two tables: rules that look at a node and what made its input, and everything equal is computed once.
Nodes that touch states update them in place, so they are never merged.
"""

from __future__ import annotations

from collections.abc import Callable

from hotloop.compile.rewrite import Rewrite, Rewriter, drop_dead, rewrite, with_inputs
from hotloop.graph import Attr, Graph, Node


def simplify(graph: Graph) -> Graph:
    """Peephole rules, common subexpressions, dead code."""
    return drop_dead(_merge_equal(rewrite(graph, RULES)))


def _affine_of_affine(g: Rewriter, node: Node) -> tuple[int, ...] | None:
    # p0 (q0 x + q1) + p1 = (p0 q0) x + (p0 q1 + p1); two negations end as p0 = 1, p1 = 0
    inner, p = g.producer(node.inputs[0]), node.attr
    if inner is None or inner.op != "affine":
        return None
    q = inner.attr
    p0, p1 = p["p0"] * q["p0"], p["p0"] * q["p1"] + p["p1"]
    x = inner.inputs[0]
    assert x is not None
    return (x,) if (p0, p1) == (1.0, 0.0) else g.emit("affine", x, p0=p0, p1=p1)


def _affine_identity(g: Rewriter, node: Node) -> tuple[int, ...] | None:
    x = node.inputs[0]
    assert x is not None
    return (x,) if (node.attr["p0"], node.attr["p1"]) == (1.0, 0.0) else None


def _copy(g: Rewriter, node: Node) -> tuple[int, ...] | None:
    # values never change, so a copy is the value itself; lowering copies where memory must be apart
    x = node.inputs[0]
    assert x is not None
    return (x,)


def _reshape(g: Rewriter, node: Node) -> tuple[int, ...] | None:
    # a reshape reads only the order of elements, which an inner reshape does not change
    x, shape = node.inputs[0], g.type(node.outputs[0]).shape
    assert x is not None
    inner = g.producer(x)
    origin = inner.inputs[0] if inner is not None and inner.op == "reshape" else x
    assert origin is not None
    if g.type(origin).shape == shape:
        return (origin,)
    return None if origin == x else g.emit("reshape", origin, **node.attr)


def _transpose(g: Rewriter, node: Node) -> tuple[int, ...] | None:
    # y[i] has axis perm[i] of x, which has axis inner[perm[i]] of its origin
    x, perm = node.inputs[0], tuple(node.attr["perm"])
    assert x is not None
    inner = g.producer(x)
    origin: int | None = x
    if inner is not None and inner.op == "transpose":
        origin = inner.inputs[0]
        before = inner.attr["perm"]
        perm = tuple(before[axis] for axis in perm)
    assert origin is not None
    if perm == tuple(range(len(perm))):
        return (origin,)
    return None if origin == x else g.emit("transpose", origin, perm=perm)


def _neutral(number: float, *, both_sides: bool) -> Rewrite:
    """x op number = x, where the number fills a constant that does not widen x."""

    def rule(g: Rewriter, node: Node) -> tuple[int, ...] | None:
        a, b = node.inputs
        for x, constant in ((a, b), (b, a))[: 2 if both_sides else 1]:
            made_by = g.producer(constant)
            if made_by is None or made_by.op != "constant" or x is None:
                continue
            if set(made_by.attr["values"]) == {number} and g.type(x) == g.type(node.outputs[0]):
                return (x,)
        return None

    return rule


RULES: dict[str, list[Callable[[Rewriter, Node], tuple[int, ...] | None]]] = {
    "affine": [_affine_identity, _affine_of_affine],
    "copy": [_copy],
    "reshape": [_reshape],
    "transpose": [_transpose],
    "add": [_neutral(0.0, both_sides=True)],
    "sub": [_neutral(0.0, both_sides=False)],
    "mul": [_neutral(1.0, both_sides=True)],
    "div": [_neutral(1.0, both_sides=False)],
}


def _merge_equal(graph: Graph) -> Graph:
    """The same op of the same inputs with the same attributes is one node. (A dropout layer's mask is a
    function of layer and step, so equal dropouts are equal too.)"""
    states = {value for _, value in graph.states}
    seen: dict[tuple[str, tuple[int | None, ...], tuple[tuple[str, Attr], ...]], Node] = {}
    same: dict[int, int] = {}
    rewriter = Rewriter.around(graph)
    for node in graph.nodes:
        node = with_inputs(node, same)
        key = (node.op, node.inputs, node.attrs)
        if not node.outputs or any(value in states for value in node.inputs):
            rewriter.append(node)
        elif key in seen:
            same.update(zip(node.outputs, seen[key].outputs, strict=True))
        else:
            seen[key] = node
            rewriter.append(node)
    return rewriter.build([(name, same.get(value, value)) for name, value in graph.outputs])
