# SPDX-License-Identifier: Apache-2.0
"""layer_norm and rms_norm, over the last axes of a row.

They give what their gradients read beside y; a statistic that nobody reads is never written.
"""

from __future__ import annotations

from typing import Any

from hotloop.errors import ShapeError
from hotloop.graph import Affine, Node, TensorType, product
from hotloop.rules.dims import Shape, expect_shape, per_element, present, real, show
from hotloop.rules.registry import Emitter, Lowering, Rule, ShapeRule, Types, register

Gradients = tuple["int | None", ...]
#: Mean, variance, normalize, scale, shift: about 8 operations an element.
FLOPS = per_element(8)


def optional(ctx: Lowering, value: int | None) -> Any:
    """The operand of an input that may be absent."""
    return None if value is None else ctx.value(value)


def if_used(ctx: Lowering, value: int) -> Any:
    """The operand of an output that may be absent."""
    return ctx.value(value) if ctx.is_used(value) else None


def _split(x: TensorType, n_axes: int, where: str) -> tuple[Shape, Shape]:
    """Leading dimensions (rows) and the normalized ones (columns)."""
    if not 1 <= n_axes <= x.rank or product(x.shape[x.rank - n_axes :]).per_row:
        raise ShapeError(
            f"[{where}] cannot normalize the last {n_axes} axes of {show(x.shape)}; not over the batch"
        )
    return x.shape[: x.rank - n_axes], x.shape[x.rank - n_axes :]


def rows_cols(ctx: Lowering, value: int | None, n_axes: int) -> dict[str, Affine]:
    (x,) = present(value)
    rows, cols = _split(ctx.type(x), n_axes, "norm")
    return {"rows": product(rows), "cols": product(cols)}


# ---- layer_norm(x, weight?, bias?; eps, n_axes) -> y, mean, rstd
# ---- rms_norm(x, weight?; eps, n_axes) -> y, rstd


def _forward_shape(name: str, n_statistics: int) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        x = real(types[0], name)
        rows, cols = _split(x, attrs["n_axes"], name)
        for parameter in types[1:]:
            expect_shape(parameter, cols, name)
        return (x, *(TensorType(rows),) * n_statistics)

    return shape


def _layer_norm_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    x, weight, bias = node.inputs
    _, mean, rstd = node.outputs
    n_axes = node.attr["n_axes"]
    (dx,) = g.emit("layer_norm_grad", douts[0], x, mean, rstd, weight, n_axes=n_axes)
    if weight is None and bias is None:
        return dx, None, None
    dweight, dbias = g.emit("layer_norm_param_grad", douts[0], x, mean, rstd, n_axes=n_axes)
    return dx, None if weight is None else dweight, None if bias is None else dbias


def _layer_norm_lower(ctx: Lowering, node: Node) -> None:
    x, weight, bias = node.inputs
    y, mean, rstd = node.outputs
    ctx.step(
        "layer_norm_fwd",
        y=ctx.value(y),
        mean=if_used(ctx, mean),
        rstd=if_used(ctx, rstd),
        x=optional(ctx, x),
        weight=optional(ctx, weight),
        bias=optional(ctx, bias),
        eps=node.attr["eps"],
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _rms_norm_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    x, weight = node.inputs
    rstd, n_axes = node.outputs[1], node.attr["n_axes"]
    (dx,) = g.emit("rms_norm_grad", douts[0], x, rstd, weight, n_axes=n_axes)
    if weight is None:
        return dx, None
    return dx, *g.emit("rms_norm_param_grad", douts[0], x, rstd, n_axes=n_axes)


def _rms_norm_lower(ctx: Lowering, node: Node) -> None:
    x, weight = node.inputs
    y, rstd = node.outputs
    ctx.step(
        "rms_norm_fwd",
        y=ctx.value(y),
        rstd=if_used(ctx, rstd),
        x=optional(ctx, x),
        weight=optional(ctx, weight),
        eps=node.attr["eps"],
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _input_grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[0], "norm_grad"),)


def _param_grad_shape(n_outputs: int) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        _, cols = _split(real(types[0], "norm_param_grad"), attrs["n_axes"], "norm_param_grad")
        return (TensorType(cols),) * n_outputs

    return shape


def layer_norm_grad_lower(ctx: Lowering, node: Node, residual: int | None = None) -> None:
    dy, x, mean, rstd, weight = node.inputs[:5]
    ctx.step(
        "layer_norm_bwd",
        dx=ctx.value(node.outputs[0]),
        dy=optional(ctx, dy),
        x=optional(ctx, x),
        mean=optional(ctx, mean),
        rstd=optional(ctx, rstd),
        weight=optional(ctx, weight),
        residual=optional(ctx, residual),
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _layer_norm_param_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, mean, rstd = node.inputs
    ctx.step(
        "layer_norm_param_bwd",
        dweight=if_used(ctx, node.outputs[0]),
        dbias=if_used(ctx, node.outputs[1]),
        dy=optional(ctx, dy),
        x=optional(ctx, x),
        mean=optional(ctx, mean),
        rstd=optional(ctx, rstd),
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


def rms_norm_grad_lower(ctx: Lowering, node: Node, residual: int | None = None) -> None:
    dy, x, rstd, weight = node.inputs[:4]
    ctx.step(
        "rms_norm_bwd",
        dx=ctx.value(node.outputs[0]),
        dy=optional(ctx, dy),
        x=optional(ctx, x),
        rstd=optional(ctx, rstd),
        weight=optional(ctx, weight),
        residual=optional(ctx, residual),
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _rms_norm_param_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, rstd = node.inputs
    ctx.step(
        "rms_norm_param_bwd",
        dweight=ctx.value(node.outputs[0]),
        dy=optional(ctx, dy),
        x=optional(ctx, x),
        rstd=optional(ctx, rstd),
        **rows_cols(ctx, x, node.attr["n_axes"]),
    )


for _rule in (
    Rule(
        "layer_norm", _forward_shape("layer_norm", 2), _layer_norm_lower, grad=_layer_norm_grad, flops=FLOPS
    ),
    Rule("layer_norm_grad", _input_grad_shape, layer_norm_grad_lower, flops=FLOPS),
    Rule("layer_norm_param_grad", _param_grad_shape(2), _layer_norm_param_grad_lower, flops=FLOPS),
    Rule("rms_norm", _forward_shape("rms_norm", 1), _rms_norm_lower, grad=_rms_norm_grad, flops=FLOPS),
    Rule("rms_norm_grad", _input_grad_shape, rms_norm_grad_lower, flops=FLOPS),
    Rule("rms_norm_param_grad", _param_grad_shape(1), _rms_norm_param_grad_lower, flops=FLOPS),
):
    register(_rule)
