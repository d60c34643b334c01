# SPDX-License-Identifier: Apache-2.0
"""Element by element: functions of one tensor, and arithmetic on two with NumPy's broadcasting.

The functions of one tensor come from one table, the twin of unary.def (a test compares the two). Numbers in
formulas (``2 * x + 1``) are all the one op `affine`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from hotloop.errors import ShapeError
from hotloop.graph import Affine, Node, TensorType
from hotloop.rules.dims import (
    Shape,
    broadcast_shapes,
    broadcast_strides,
    expect_shape,
    merge_dims,
    per_element,
    present,
    real,
    shape_to_attr,
    strided_fields,
)
from hotloop.rules.registry import Emitter, GradRule, Lowering, LowerRule, Rule, ShapeRule, Types, register

#: Weight of one transcendental function in `flops`: a polynomial of about this many multiply-adds.
TRANSCENDENTAL = 10


class Unary(NamedTuple):
    """One line of unary.def.

    reads       what the gradient reads: "Input" x, "Output" y = f(x), "Sign" y, of which only the sign counts
    parameters  how many of p0, p1 the function has
    flops       per element
    """

    reads: Literal["Input", "Output", "Sign"]
    parameters: int = 0
    flops: int = TRANSCENDENTAL


#: In the order of unary.def: the position is the number by which a fused product names its activation.
UNARY: dict[str, Unary] = {
    "relu": Unary("Sign", flops=1),
    "leaky_relu": Unary("Sign", 1, flops=2),
    "elu": Unary("Output", 1),
    "selu": Unary("Output"),
    "gelu": Unary("Input"),
    "gelu_tanh": Unary("Input"),
    "silu": Unary("Input"),
    "mish": Unary("Input", flops=2 * TRANSCENDENTAL),
    "tanh": Unary("Output"),
    "sigmoid": Unary("Output"),
    "softplus": Unary("Input", 2, flops=2 * TRANSCENDENTAL),
    "exp": Unary("Output"),
    "log": Unary("Input"),
    "sqrt": Unary("Output", flops=1),
    "square": Unary("Input", flops=1),
    "abs": Unary("Input", flops=1),
    "reciprocal": Unary("Output", flops=1),
    "affine": Unary("Input", 2, flops=2),
}


def activation_index(name: str | None) -> int:
    """The number of a function in unary.def; -1 for None."""
    return -1 if name is None else list(UNARY).index(name)


def unary_fields(attrs: dict[str, Any]) -> dict[str, float]:
    return {"p0": float(attrs.get("p0", 0.0)), "p1": float(attrs.get("p1", 0.0))}


def _register_unary(name: str, unary: Unary) -> None:
    """``y = f(x; p0, p1)`` and ``dx = dy * f'(saved)``, where saved is x or y as the table says."""

    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        return (real(types[0], name),)

    def grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
        saved = node.inputs[0] if unary.reads == "Input" else node.outputs[0]
        return g.emit(f"{name}_grad", douts[0], saved, **node.attr)

    def affine_grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
        # (p0 x + p1)' = p0 needs nothing saved
        return g.emit("affine", douts[0], p0=node.attr["p0"], p1=0.0)

    def lower(ctx: Lowering, node: Node) -> None:
        (x,), (y,) = present(*node.inputs), node.outputs
        ctx.step(f"{name}_fwd", y=ctx.value(y), x=ctx.value(x), n=ctx.type(y).size, **unary_fields(node.attr))

    rule: GradRule = affine_grad if name == "affine" else grad
    register(Rule(name, shape, lower, grad=rule, flops=per_element(unary.flops)))
    if name != "affine":
        register(
            Rule(f"{name}_grad", _grad_shape(name), _grad_lower(name), flops=per_element(unary.flops + 1))
        )


def _grad_shape(name: str) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        dy = real(types[0], f"{name}_grad")
        if types[1] is None:
            raise ShapeError(f"[{name}_grad] what the function saved is missing")
        expect_shape(types[1], dy.shape, f"{name}_grad")
        return (dy,)

    return shape


def _grad_lower(name: str) -> LowerRule:
    def lower(ctx: Lowering, node: Node) -> None:
        lower_unary_grad(ctx, node, name, dropout=-1)

    return lower


def lower_unary_grad(ctx: Lowering, node: Node, name: str, *, dropout: int) -> None:
    """``dx = dropout(dy) * f'(saved)`` of a node with inputs (dy, saved) and one output."""
    dy, saved = present(*node.inputs[:2])
    ctx.step(
        f"{name}_bwd",
        dx=ctx.value(node.outputs[0]),
        dy=ctx.value(dy),
        saved=ctx.value(saved),
        n=ctx.type(dy).size,
        dropout=dropout,
        dropout_row=ctx.type(dy).size.per_row,
        **unary_fields(node.attr),
    )


def reduce_to(g: Emitter, dy: int, shape: Shape) -> int:
    """The gradient of broadcasting: dy summed over what a tensor of ``shape`` was repeated along."""
    have = g.type(dy).shape
    if have == shape:
        return dy
    missing = len(have) - len(shape)
    axes = tuple(i for i in range(len(have)) if i < missing or (shape[i - missing] == 1 and have[i] != 1))
    if axes:
        (dy,) = g.emit("sum", dy, axes=axes, keepdim=False)
    if g.type(dy).shape != shape:
        (dy,) = g.emit("reshape", dy, shape=shape_to_attr(shape))
    return dy


def _reduced(g: Emitter, node: Node, da: int, db: int) -> tuple[int, int]:
    """Full-size gradients of a and b, reduced to the shapes of a and b."""
    a, b = present(*node.inputs)
    return reduce_to(g, da, g.type(a).shape), reduce_to(g, db, g.type(b).shape)


def _grad_add(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    (dy,) = present(*douts)
    return _reduced(g, node, dy, dy)


def _grad_sub(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    da, db = _grad_add(g, node, douts)  # reduced before it is negated: less to negate
    return da, *g.emit("affine", db, p0=-1.0, p1=0.0)


def _grad_mul(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    a, b = node.inputs
    return _reduced(g, node, *g.emit("mul", douts[0], b), *g.emit("mul", douts[0], a))


def _grad_div(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    # y = a / b: da = dy / b, db = -dy y / b = -da y
    (da,) = g.emit("div", douts[0], node.inputs[1])
    da, db = _reduced(g, node, da, *g.emit("mul", da, node.outputs[0]))
    return da, *g.emit("affine", db, p0=-1.0, p1=0.0)


def _register_binary(name: str, grad: GradRule) -> None:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        a, b = real(types[0], name), real(types[1], name)
        return (TensorType(broadcast_shapes(a.shape, b.shape, name)),)

    def lower(ctx: Lowering, node: Node) -> None:
        a, b = present(*node.inputs)
        out = ctx.type(node.outputs[0]).shape
        strides = [broadcast_strides(ctx.type(v).shape, out) for v in (a, b)]
        # the output is dense: its neighbours always merge, so only a and b decide
        dims, (sa, sb) = merge_dims(out, strides, name)
        ctx.step(
            name,
            out=ctx.value(node.outputs[0]),
            a=ctx.value(a),
            b=ctx.value(b),
            **strided_fields(dims, a=sa, b=sb),
        )

    def flops(types: Types, attrs: dict[str, Any]) -> Affine:
        return shape(types, attrs)[0].size

    register(Rule(name, shape, lower, grad=grad, flops=flops))


for _name, _unary in UNARY.items():
    _register_unary(_name, _unary)
for _name, _grad in {"add": _grad_add, "sub": _grad_sub, "mul": _grad_mul, "div": _grad_div}.items():
    _register_binary(_name, _grad)
