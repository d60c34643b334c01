# SPDX-License-Identifier: Apache-2.0
"""Fused ops: several ops in one kernel call. Only the fuse pass makes them.

Each has a ``reference`` of simpler ops, which is its meaning and its oracle: a plan with fusion equals the
plan without. (The fused losses stand beside their parts in loss.py.)
"""

from __future__ import annotations

from typing import Any

from hotloop.graph import Affine, Node, TensorType
from hotloop.rules.dims import expect_shape, present
from hotloop.rules.elementwise import UNARY, activation_index, lower_unary_grad, unary_fields
from hotloop.rules.matmul import lower_linear, lower_product
from hotloop.rules.norm import layer_norm_grad_lower, rms_norm_grad_lower
from hotloop.rules.registry import RULES, Emitter, Lowering, Rule, Types, register, rule_of


def _parameters(attrs: dict[str, Any]) -> dict[str, float]:
    """p0 and p1 as far as the activation has them."""
    return {name: attrs[name] for name in ("p0", "p1")[: UNARY[attrs["activation"]].parameters]}


def _epilogue(ctx: Lowering, attrs: dict[str, Any], **operands: int | None) -> dict[str, Any]:
    """The fields of a product that say what follows it."""
    values = {name: None if v is None else ctx.value(v) for name, v in operands.items()}
    return {
        "activation": activation_index(attrs.get("activation")),
        "dropout": attrs.get("layer", -1),
        **unary_fields(attrs),
        **values,
    }


def _flops(product: str, types: Types, attrs: dict[str, Any], out: TensorType, gate: int = 0) -> Affine:
    """Of the product and what follows it, element by element; ``gate``: 1 for the multiplication by f'."""
    count = RULES[product].flops
    assert count is not None
    matmul = count(types, {})
    function = UNARY[attrs["activation"]].flops + gate if "activation" in attrs else 0
    tail = out.size * (function + ("layer" in attrs) + (types[3] is not None))
    return Affine(matmul.per_row + tail.per_row, matmul.const + tail.const)


# linear_fused(x, weight, bias or None, residual or None) -> (out) or (out, saved)
#   out = dropout(activation(z)) + residual, z = x W^T + b;  saved is what the activation's gradient reads
#   (unary.def).
#   attrs: activation, or none; p0, p1 if it has them; layer and p if there is a dropout; save


def _linear_fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    (out,) = rule_of("linear").shape(types[:3], {})
    expect_shape(types[3], out.shape, "linear_fused")
    return (out, out) if attrs["save"] else (out,)


def _linear_fused_lower(ctx: Lowering, node: Node) -> None:
    x, weight = present(*node.inputs[:2])
    attrs = node.attr
    saved = node.outputs[1] if attrs["save"] and ctx.is_used(node.outputs[1]) else None
    epilogue = _epilogue(ctx, attrs, saved=saved, residual=node.inputs[3])
    lower_linear(ctx, x, weight, node.inputs[2], node.outputs[0], **epilogue)


def _linear_fused_reference(g: Emitter, node: Node) -> tuple[int, ...]:
    attrs = node.attr
    (z,) = g.emit("linear", *node.inputs[:3])
    y = g.emit(attrs["activation"], z, **_parameters(attrs))[0] if "activation" in attrs else z
    out = g.emit("dropout", y, layer=attrs["layer"], p=attrs["p"])[0] if "layer" in attrs else y
    if node.inputs[3] is not None:
        (out,) = g.emit("add", out, node.inputs[3])
    if not attrs["save"]:
        return (out,)
    return out, z if UNARY[attrs["activation"]].reads == "Input" else y


def _linear_fused_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    return _flops("linear", types, attrs, _linear_fused_shape(types, attrs)[0])


register(
    Rule(
        "linear_fused",
        _linear_fused_shape,
        _linear_fused_lower,
        reference=_linear_fused_reference,
        flops=_linear_fused_flops,
    )
)


# input_grad_fused(dy, weight, saved or None, residual or None) -> dz = dropout(dy W) * f'(saved) + residual
#   The gradient by what an activation and a dropout were applied to, in the product that makes it.
#   attrs: product, the op that is dy W (linear_grad_input, or linear where W is stored transposed);
#          activation with p0, p1 if it has them; layer and p if there is a dropout


def _product_inputs(attrs: dict[str, Any], inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the product takes: a linear layer has a bias too."""
    return (*inputs[:2], None) if attrs["product"] == "linear" else inputs[:2]


def _input_grad_fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    (dx,) = rule_of(attrs["product"]).shape(_product_inputs(attrs, tuple(types)), {})
    for other in types[2:]:
        expect_shape(other, dx.shape, "input_grad_fused")
    return (dx,)


def _input_grad_fused_lower(ctx: Lowering, node: Node) -> None:
    dy, weight = present(*node.inputs[:2])
    epilogue = _epilogue(ctx, node.attr, gate=node.inputs[2], residual=node.inputs[3])
    if node.attr["product"] == "linear":
        lower_linear(ctx, dy, weight, None, node.outputs[0], **epilogue)
    else:
        lower_product(ctx, dy, weight, node.outputs[0], **epilogue)


def _input_grad_fused_reference(g: Emitter, node: Node) -> tuple[int, ...]:
    attrs = node.attr
    (dx,) = g.emit(attrs["product"], *_product_inputs(attrs, node.inputs))
    if "layer" in attrs:
        (dx,) = g.emit("dropout", dx, layer=attrs["layer"], p=attrs["p"])
    if "activation" in attrs:
        (dx,) = g.emit(f"{attrs['activation']}_grad", dx, node.inputs[2], **_parameters(attrs))
    if node.inputs[3] is not None:
        (dx,) = g.emit("add", dx, node.inputs[3])
    return (dx,)


def _input_grad_fused_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    (dx,) = _input_grad_fused_shape(types, attrs)
    return _flops(attrs["product"], types, attrs, dx, gate=1)


register(
    Rule(
        "input_grad_fused",
        _input_grad_fused_shape,
        _input_grad_fused_lower,
        reference=_input_grad_fused_reference,
        flops=_input_grad_fused_flops,
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


# norm_grad_fused(inputs of the norm's gradient ..., residual) -> dx + residual
#   Where a norm stands at the head of a residual branch: the gradient that comes past the branch is added to
#   the one through it. attrs: norm, layer_norm_grad or rms_norm_grad; n_axes


def _norm_grad_fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    (dx,) = rule_of(attrs["norm"]).shape(types[:-1], {"n_axes": attrs["n_axes"]})
    expect_shape(types[-1], dx.shape, "norm_grad_fused")
    return (dx,)


def _norm_grad_fused_lower(ctx: Lowering, node: Node) -> None:
    lower = layer_norm_grad_lower if node.attr["norm"] == "layer_norm_grad" else rms_norm_grad_lower
    lower(ctx, node, node.inputs[-1])


def _norm_grad_fused_reference(g: Emitter, node: Node) -> tuple[int, ...]:
    (dx,) = g.emit(node.attr["norm"], *node.inputs[:-1], n_axes=node.attr["n_axes"])
    return g.emit("add", dx, node.inputs[-1])


def _norm_grad_fused_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    count = RULES[attrs["norm"]].flops
    assert count is not None
    norm, each = count(types, attrs), _norm_grad_fused_shape(types, attrs)[0].size
    return Affine(norm.per_row + each.per_row, norm.const + each.const)


register(
    Rule(
        "norm_grad_fused",
        _norm_grad_fused_shape,
        _norm_grad_fused_lower,
        reference=_norm_grad_fused_reference,
        flops=_norm_grad_fused_flops,
    )
)
