# SPDX-License-Identifier: Apache-2.0
"""Fused ops: several ops in one kernel call. Only the fuse pass makes them.

Each has a ``reference`` of simpler ops, which is its meaning and its oracle: a plan with fusion equals the
plan without. (The fused losses stand beside their parts in loss.py.)
"""

from __future__ import annotations

from typing import Any

from hotloop.graph import Affine, Node, TensorType
from hotloop.ops.elementwise import UNARY, lower_unary_grad, unary_fields
from hotloop.ops.matmul import lower_linear
from hotloop.ops.registry import RULES, Emitter, Lowering, Rule, Types, register, rule_of


def _parameters(attrs: dict[str, Any]) -> dict[str, float]:
    """p0 and p1 as far as the activation has them."""
    return {name: attrs[name] for name in ("p0", "p1")[: UNARY[attrs["activation"]].parameters]}


# linear_fused(x, weight, bias or None) -> (out) or (out, saved)
#   out = dropout(activation(z)), z = x W^T + b;  saved is what the activation's gradient reads (unary.def).
#   attrs: activation; p0, p1 if it has them; layer and p if there is a dropout; save


def _linear_fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    (out,) = rule_of("linear").shape(types, {})
    return (out, out) if attrs["save"] else (out,)


def _linear_fused_lower(ctx: Lowering, node: Node) -> None:
    x, weight, bias = node.inputs
    assert x is not None
    assert weight is not None
    attrs = node.attr
    saved = node.outputs[1] if attrs["save"] and ctx.is_used(node.outputs[1]) else None
    lower_linear(
        ctx,
        x,
        weight,
        bias,
        node.outputs[0],
        saved=saved,
        activation=attrs["activation"],
        dropout=attrs.get("layer", -1),
        **unary_fields(attrs),
    )


def _linear_fused_reference(g: Emitter, node: Node) -> tuple[int, ...]:
    attrs = node.attr
    (z,) = g.emit("linear", *node.inputs)
    (y,) = g.emit(attrs["activation"], z, **_parameters(attrs))
    out = g.emit("dropout", y, layer=attrs["layer"], p=attrs["p"])[0] if "layer" in attrs else y
    saved = z if UNARY[attrs["activation"]].reads == "Input" else y
    return (out, saved) if attrs["save"] else (out,)


def _linear_fused_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    product = RULES["linear"].flops
    assert product is not None
    matmul = product(types, {})
    tail = _linear_fused_shape(types, attrs)[0].size * (UNARY[attrs["activation"]].flops + ("layer" in attrs))
    return Affine(matmul.per_row + tail.per_row, matmul.const + tail.const)


register(
    Rule(
        "linear_fused",
        _linear_fused_shape,
        _linear_fused_lower,
        reference=_linear_fused_reference,
        flops=_linear_fused_flops,
    )
)


# unary_grad_fused(dy, saved) -> dx = dropout(dy) * f'(saved)
#   attrs: activation; p0, p1 if it has them; layer, p


def _unary_grad_fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return rule_of(f"{attrs['activation']}_grad").shape(types, _parameters(attrs))


def _unary_grad_fused_lower(ctx: Lowering, node: Node) -> None:
    lower_unary_grad(ctx, node, node.attr["activation"], dropout=node.attr["layer"])


def _unary_grad_fused_reference(g: Emitter, node: Node) -> tuple[int, ...]:
    attrs = node.attr
    (dy,) = g.emit("dropout", node.inputs[0], layer=attrs["layer"], p=attrs["p"])
    return g.emit(f"{attrs['activation']}_grad", dy, node.inputs[1], **_parameters(attrs))


def _unary_grad_fused_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    assert types[0] is not None
    return types[0].size * (UNARY[attrs["activation"]].flops + 2)


register(
    Rule(
        "unary_grad_fused",
        _unary_grad_fused_shape,
        _unary_grad_fused_lower,
        reference=_unary_grad_fused_reference,
        flops=_unary_grad_fused_flops,
    )
)
