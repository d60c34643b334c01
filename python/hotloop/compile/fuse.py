# SPDX-License-Identifier: Apache-2.0
"""Fuse: several nodes become one kernel call, so that a tensor in cache is read once.

    linear + activation and/or dropout     -> linear_fused
    gradient of a layer's input + those    -> input_grad_fused
    either + a sum with another tensor     -> the same, with a residual
    gradient of a norm + a sum likewise    -> norm_grad_fused
    dropout's gradient + activation's      -> unary_grad_fused, where no product stands before them
    gradient of a weight + of its bias     -> linear_grad_weight with two outputs
    loss + its gradient                    -> {kind}_fused

A fused node writes the very values it replaces, so nobody else has to change. Each rule looks at one node
and its readers, declines unless every value that others read is still written, and edits the sketch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from hotloop.compile.rewrite import in_order
from hotloop.compile.sketch import Sketch
from hotloop.graph import Attr, Graph, Node, make_attrs
from hotloop.rules.elementwise import UNARY
from hotloop.rules.loss import LOSSES


def fuse(graph: Graph, rules: Collection[str] | None = None) -> Graph:
    """Apply every rule of `RULES`, or only those named, once, from the first node to the last."""
    sketch = Sketch(graph)
    for index in range(len(graph.nodes)):
        for name, (ops, rule) in RULES.items():
            current = sketch.nodes[index]  # what the rules before have made of it
            if current is not None and current.op in ops and (rules is None or name in rules):
                rule(sketch, index)
    return dataclasses.replace(graph, nodes=tuple(in_order([n for n in sketch.nodes if n is not None])))


def _linear(s: Sketch, index: int) -> None:
    """y = f(x W^T + b), and dropout of y if nothing that the kernel does not write is read elsewhere."""
    linear = s.node(index)
    z = linear.outputs[0]
    found = next((i for name in UNARY for i in s.read_by(z, name)), None)
    if found is None:
        _linear_dropout(s, index)
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
    s.replace(index, Node("linear_fused", (*linear.inputs, None), outputs, make_attrs(attrs)))


def _linear_dropout(s: Sketch, index: int) -> None:
    """y = dropout(x W^T + b)"""
    linear = s.node(index)
    dropout = _sole_reader(s, linear.outputs[0], "dropout")
    if dropout is None:
        return
    node = s.node(dropout)
    attrs = make_attrs({"save": False, **node.attr})
    s.replace(dropout, None)
    s.replace(index, Node("linear_fused", (*linear.inputs, None), node.outputs, attrs))


def _sole_reader(s: Sketch, value: int, *ops: str) -> int | None:
    """The node of one of these ops that alone reads the value, as its first input."""
    found = next((i for op in ops for i in s.read_by(value, op)), None)
    return found if found is not None and s.only_reader(value, found) else None


def _input_grad(s: Sketch, index: int) -> None:
    """dz = dropout(dy W) * f'(saved)"""
    product = s.node(index)
    if product.op == "linear" and product.inputs[2] is not None:
        return
    taken, attrs, saved = [], {}, None
    value = product.outputs[0]
    dropout = _sole_reader(s, value, "dropout")
    if dropout is not None:
        taken.append(dropout)
        attrs.update(s.node(dropout).attr)
        value = s.node(dropout).outputs[0]
    grad = _sole_reader(s, value, *(f"{name}_grad" for name in UNARY))
    if grad is not None and s.node(grad).inputs[1] != value:
        taken.append(grad)
        attrs.update({"activation": s.node(grad).op.removesuffix("_grad"), **s.node(grad).attr})
        saved = s.node(grad).inputs[1]
    if not taken or (saved is None and product.op == "linear"):  # the latter is _linear's
        return
    out = s.node(taken[-1]).outputs
    for reader in taken:
        s.replace(reader, None)
    inputs = (*product.inputs[:2], saved, None)
    s.replace(index, Node("input_grad_fused", inputs, out, make_attrs({"product": product.op, **attrs})))


def _take_dropout(s: Sketch, y: int, saves_z: bool, activation: str, attrs: dict[str, Attr]) -> int:
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


def _drops(s: Sketch, value: int | None, dropout: Node) -> bool:
    """Whether the value went through the same dropout, as the gradient of its output does."""
    index = None if value is None else s.producer.get(value)
    made_by = None if index is None else s.nodes[index]
    return made_by is not None and (made_by.op, made_by.attrs) == (dropout.op, dropout.attrs)


def _read_beside(s: Sketch, value: int, index: int) -> bool:
    return value in s.outputs or any(reader != index for reader in s.readers.get(value, ()))


def _residual(s: Sketch, index: int) -> None:
    """y = product + residual, where nobody else needs the product and the residual does not come from it."""
    product = s.node(index)
    value = product.outputs[0]
    found, other = _sum_of(s, index)
    if found is None:
        return
    add = s.node(found)
    inputs, attrs, outputs = product.inputs, product.attr, add.outputs + product.outputs[1:]
    if not s.only_reader(value, found):
        if attrs.get("save", True) or not _only_gradients_read(s, value, found, attrs.get("activation")):
            return
        outputs, attrs["save"] = (*outputs, value), True
    if product.op in ("linear", "linear_grad_input"):
        inputs, attrs = _bare(product)
    op = "linear_fused" if "save" in attrs else "input_grad_fused"
    s.replace(found, None)
    s.replace(index, Node(op, (*inputs[:3], other), outputs, make_attrs(attrs)))


def _sum_of(s: Sketch, index: int) -> tuple[int | None, int | None]:
    """The node that adds this one's first output to a tensor of its shape, and that tensor, if there is one
    that does not come from this node."""
    value = s.node(index).outputs[0]
    found = next((i for i in s.readers.get(value, ()) if s.node(i).op == "add"), None)
    if found is None:
        return None, None
    add = s.node(found)
    other = add.inputs[1] if add.inputs[0] == value else add.inputs[0]
    assert other is not None
    shape = s.types[value].shape
    if s.types[other].shape != shape or s.types[add.outputs[0]].shape != shape or s.depends(other, index):
        return None, None
    return found, other


def _norm_grad(s: Sketch, index: int) -> None:
    """dx = gradient through a norm + gradient past it"""
    norm = s.node(index)
    found, other = _sum_of(s, index)
    if found is None or not s.only_reader(norm.outputs[0], found):
        return
    outputs, attrs = s.node(found).outputs, make_attrs({"norm": norm.op, **norm.attr})
    s.replace(found, None)
    s.replace(index, Node("norm_grad_fused", (*norm.inputs, other), outputs, attrs))


def _bare(product: Node) -> tuple[tuple[int | None, ...], dict[str, Attr]]:
    """Inputs and attributes of the fused form of a product that nothing follows yet."""
    if product.op == "linear":
        return product.inputs, {"save": False}
    return (*product.inputs, None), {"product": product.op}


def _only_gradients_read(s: Sketch, y: int, but: int, activation: Attr | None) -> bool:
    """Whether all readers of a layer's output except one are its activation's gradients. What those read can
    be written beside the output (of a sign, dropped or not: at dropped elements the gradient is zero)."""
    others = [s.node(i) for i in s.readers.get(y, ()) if i != but]
    return y not in s.outputs and all(
        n.op == f"{activation}_grad" and n.inputs[0] != y and n.inputs[1] == y for n in others
    )


def _dropout(s: Sketch, index: int) -> None:
    """dx = dropout(dy) * f'(saved)"""
    dropout = s.node(index)
    dy = dropout.outputs[0]
    reader = _sole_reader(s, dy, *(f"{name}_grad" for name in UNARY))
    if reader is None or s.node(reader).inputs[1] == dy:
        return
    grad = s.node(reader)
    attrs = make_attrs({"activation": grad.op.removesuffix("_grad"), **grad.attr, **dropout.attr})
    s.replace(index, None)
    s.replace(reader, Node("unary_grad_fused", (dropout.inputs[0], grad.inputs[1]), grad.outputs, attrs))


def _linear_grad_weight(s: Sketch, index: int) -> None:
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


def _loss(s: Sketch, index: int) -> None:
    """Row losses and their gradient share the reading of the prediction, and the softmax."""
    loss = s.node(index)
    assert loss.inputs[0] is not None
    for reader in s.read_by(loss.inputs[0], f"{loss.op}_grad"):
        grad = s.node(reader)
        if grad.inputs[:3] == loss.inputs and grad.attrs == loss.attrs:
            s.replace(reader, None)
            s.replace(index, Node(f"{loss.op}_fused", grad.inputs, loss.outputs + grad.outputs, loss.attrs))
            return


#: name -> (ops that it begins at, rule)
RULES: dict[str, tuple[Collection[str], Callable[[Sketch, int], None]]] = {
    "input_grad": (("linear_grad_input", "linear"), _input_grad),
    "epilogue": (("linear",), _linear),
    "residual": (("linear", "linear_fused", "linear_grad_input", "input_grad_fused"), _residual),
    "norm_grad": (("layer_norm_grad", "rms_norm_grad"), _norm_grad),
    "dropout_grad": (("dropout",), _dropout),
    "bias_grad": (("linear_grad_weight",), _linear_grad_weight),
    "loss": (LOSSES, _loss),
}
