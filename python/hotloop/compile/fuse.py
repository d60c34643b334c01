# SPDX-License-Identifier: Apache-2.0
"""Fuse: several nodes become one kernel call, so that a tensor in cache is read once.

    linear + activation (+ dropout)        -> linear_fused
    dropout's gradient + activation's      -> unary_grad_fused
    gradient of a weight + of its bias     -> linear_grad_weight with two outputs
    loss + its gradient                    -> {kind}_fused

A fused node writes the very values it replaces, so nobody else has to change. Each rule looks at one node
and its readers, declines unless every value that others read is still written, and edits the sketch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hotloop.compile.rewrite import in_order
from hotloop.graph import Attr, Graph, Node, TensorType, make_attrs
from hotloop.ops.elementwise import UNARY
from hotloop.ops.loss import LOSSES


class _Sketch:
    """A graph under change: nodes by number, and who reads each value."""

    def __init__(self, graph: Graph) -> None:
        self.types: tuple[TensorType, ...] = graph.types
        self.nodes: list[Node | None] = list(graph.nodes)
        self.outputs = {value for _, value in graph.outputs}
        self.producer = {value: index for index, node in enumerate(graph.nodes) for value in node.outputs}
        self.readers: dict[int, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            self._enter(index, node)

    def read_by(self, value: int, op: str) -> list[int]:
        """The nodes of this op whose first input is the value."""
        result = []
        for index in self.readers.get(value, ()):
            node = self.nodes[index]
            if node is not None and node.op == op and node.inputs[0] == value:
                result.append(index)
        return result

    def only_reader(self, value: int, index: int) -> bool:
        """Whether nothing but this node needs the value."""
        return value not in self.outputs and set(self.readers.get(value, ())) <= {index}

    def node(self, index: int) -> Node:
        node = self.nodes[index]
        assert node is not None
        return node

    def replace(self, index: int, node: Node | None) -> None:
        old = self.node(index)
        for value in {v for v in old.inputs if v is not None}:
            self.readers[value].remove(index)
        self.nodes[index] = node
        if node is not None:
            self._enter(index, node)

    def _enter(self, index: int, node: Node) -> None:
        for value in {v for v in node.inputs if v is not None}:
            self.readers.setdefault(value, []).append(index)


def fuse(graph: Graph) -> Graph:
    """Apply every rule once, from the first node to the last."""
    sketch = _Sketch(graph)
    for index, node in enumerate(graph.nodes):
        rule = RULES.get(node.op)
        if rule is not None and sketch.nodes[index] is not None:
            rule(sketch, index)
    return dataclasses.replace(graph, nodes=tuple(in_order([n for n in sketch.nodes if n is not None])))


def _linear(s: _Sketch, index: int) -> None:
    """y = f(x W^T + b), and dropout of y if nothing that the kernel does not write is read elsewhere."""
    linear = s.node(index)
    z = linear.outputs[0]
    found = next((i for name in UNARY for i in s.read_by(z, name)), None)
    if found is None:
        return
    activation = s.node(found)
    y, reads = activation.outputs[0], UNARY[activation.op].reads
    if reads != "Input" and not s.only_reader(z, found):
        return
    attrs: dict[str, Attr] = {"activation": activation.op, **activation.attr}
    s.replace(found, None)
    out = _take_dropout(s, y, reads == "Input", activation.op, attrs)
    saved = z if reads == "Input" else y
    # without dropout, y is both the output and what the gradient reads
    attrs["save"] = saved != out and _read_beside(s, saved, index)
    outputs = (out, saved) if attrs["save"] else (out,)
    s.replace(index, Node("linear_fused", linear.inputs, outputs, make_attrs(attrs)))


def _take_dropout(s: _Sketch, y: int, saves_z: bool, activation: str, attrs: dict[str, Attr]) -> int:
    """The value that comes out: of the one dropout that reads y, or y itself."""
    dropouts = s.read_by(y, "dropout")
    if len(dropouts) != 1 or (saves_z and not s.only_reader(y, dropouts[0])):
        return y
    dropout = s.node(dropouts[0])
    attrs.update(dropout.attr)
    s.replace(dropouts[0], None)
    out = dropout.outputs[0]
    if UNARY[activation].reads == "Sign":
        # kept elements keep their sign, so a gradient that is zero at the dropped ones can read the output
        for reader in list(s.readers.get(y, ())):
            node = s.node(reader)
            if node.op == f"{activation}_grad" and node.inputs[1] == y and _drops(s, node.inputs[0], dropout):
                s.replace(reader, dataclasses.replace(node, inputs=(node.inputs[0], out)))
    return out


def _drops(s: _Sketch, value: int | None, dropout: Node) -> bool:
    """Whether the value went through the same dropout, as the gradient of its output does."""
    index = None if value is None else s.producer.get(value)
    made_by = None if index is None else s.nodes[index]
    return made_by is not None and (made_by.op, made_by.attrs) == (dropout.op, dropout.attrs)


def _read_beside(s: _Sketch, value: int, index: int) -> bool:
    return value in s.outputs or any(reader != index for reader in s.readers.get(value, ()))


def _dropout(s: _Sketch, index: int) -> None:
    """dx = dropout(dy) * f'(saved)"""
    dropout = s.node(index)
    dy = dropout.outputs[0]
    for name in UNARY:
        for reader in s.read_by(dy, f"{name}_grad"):
            grad = s.node(reader)
            if not s.only_reader(dy, reader) or grad.inputs[1] == dy:
                continue
            attrs = make_attrs({"activation": name, **grad.attr, **dropout.attr})
            s.replace(index, None)
            s.replace(
                reader, Node("unary_grad_fused", (dropout.inputs[0], grad.inputs[1]), grad.outputs, attrs)
            )
            return


def _linear_grad_weight(s: _Sketch, index: int) -> None:
    """dW = dy^T x and db = sum of dy over its rows: the product reads every element of dy anyway."""
    product = s.node(index)
    dy = product.inputs[0]
    if product.attr.get("bias") or dy is None:
        return
    features = s.types[product.outputs[0]].shape[:1]
    for reader in s.read_by(dy, "sum"):
        total = s.node(reader)
        axes = tuple(range(s.types[dy].rank - 1))
        if tuple(total.attr["axes"]) == axes and s.types[total.outputs[0]].shape == features:
            s.replace(reader, None)
            outputs = (product.outputs[0], total.outputs[0])
            s.replace(index, Node(product.op, product.inputs, outputs, make_attrs({"bias": True})))
            return


def _loss(s: _Sketch, index: int) -> None:
    """Row losses and their gradient share the reading of the prediction, and the softmax."""
    loss = s.node(index)
    assert loss.inputs[0] is not None
    for reader in s.read_by(loss.inputs[0], f"{loss.op}_grad"):
        grad = s.node(reader)
        if grad.inputs[:3] == loss.inputs and grad.attrs == loss.attrs:
            s.replace(reader, None)
            s.replace(index, Node(f"{loss.op}_fused", grad.inputs, loss.outputs + grad.outputs, loss.attrs))
            return


RULES: dict[str, Callable[[_Sketch, int], None]] = {
    "linear": _linear,
    "dropout": _dropout,
    "linear_grad_weight": _linear_grad_weight,
    **dict.fromkeys(LOSSES, _loss),
}
