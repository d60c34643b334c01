# SPDX-License-Identifier: Apache-2.0
"""batch_norm(x (rows, cols), weight?, bias?, running_mean?, running_var?; eps, momentum) -> y.

The traced op does not know its mode; compiling turns it into ``batch_norm_train``, which gives the batch's
statistics beside y and moves the running ones in place, or into ``batch_norm_eval``.
"""

from __future__ import annotations

from typing import Any

from hotloop.errors import InternalError, ShapeError
from hotloop.graph import Node, TensorType
from hotloop.rules.dims import expect_shape, real, show
from hotloop.rules.norm import FLOPS, Gradients, if_used, optional, rows_cols
from hotloop.rules.registry import Emitter, Lowering, Rule, ShapeRule, Types, register


def _shape(n_statistics: int) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        x = real(types[0], "batch_norm")
        if x.rank != 2 or not isinstance(x.shape[1], int):
            raise ShapeError(f"[batch_norm] the input must be (rows, channels), got {show(x.shape)}")
        columns = TensorType(x.shape[1:])
        for parameter in types[1:]:
            expect_shape(parameter, columns.shape, "batch_norm")
        return (x, *(columns,) * n_statistics)

    return shape


def _lower(ctx: Lowering, node: Node) -> None:
    raise InternalError("[batch_norm] was not turned into its training or evaluation form before lowering")


def _train_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    x, weight, bias = node.inputs[:3]
    _, mean, rstd = node.outputs
    dx, dweight, dbias = g.emit("batch_norm_grad", douts[0], x, mean, rstd, weight)
    return dx, None if weight is None else dweight, None if bias is None else dbias, None, None


def _fields(ctx: Lowering, node: Node) -> dict[str, Any]:
    x, weight, bias, running_mean, running_var = node.inputs
    return {
        "y": ctx.value(node.outputs[0]),
        "running_mean": optional(ctx, running_mean),
        "running_var": optional(ctx, running_var),
        "x": optional(ctx, x),
        "weight": optional(ctx, weight),
        "bias": optional(ctx, bias),
        "eps": node.attr["eps"],
        **rows_cols(ctx, x, 1),
    }


def _train_lower(ctx: Lowering, node: Node) -> None:
    _, mean, rstd = node.outputs
    ctx.step(
        "batch_norm_fwd",
        mean=ctx.value(mean),
        rstd=ctx.value(rstd),
        momentum=node.attr["momentum"],
        **_fields(ctx, node),
    )


def _eval_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    """dx is the same map without its shift: dy weight / sqrt(running_var + eps). What is not wanted of the
    others, as where weight and bias are frozen, is dead code."""
    x, weight, bias, running_mean, running_var = node.inputs
    eps = node.attr["eps"]
    assert running_mean is not None
    cols = g.type(running_mean).size.const
    (no_mean,) = g.emit("constant", values=(0.0,) * cols, shape=(cols,))
    (dx,) = g.emit("batch_norm_eval", douts[0], weight, None, no_mean, running_var, eps=eps)
    dweight = dbias = None
    if weight is not None:
        (normal,) = g.emit("batch_norm_eval", x, None, None, running_mean, running_var, eps=eps)
        (product,) = g.emit("mul", douts[0], normal)
        (dweight,) = g.emit("sum", product, axes=(0,), keepdim=False)
    if bias is not None:
        (dbias,) = g.emit("sum", douts[0], axes=(0,), keepdim=False)
    return dx, dweight, dbias, None, None


def _eval_lower(ctx: Lowering, node: Node) -> None:
    ctx.step("batch_norm_eval", **_fields(ctx, node))


def _grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    dy = real(types[0], "batch_norm_grad")
    return (dy, TensorType(dy.shape[1:]), TensorType(dy.shape[1:]))


def _grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, mean, rstd, weight = node.inputs
    dx, dweight, dbias = node.outputs
    ctx.step(
        "batch_norm_bwd",
        dx=ctx.value(dx),
        dweight=if_used(ctx, dweight),
        dbias=if_used(ctx, dbias),
        dy=optional(ctx, dy),
        x=optional(ctx, x),
        mean=optional(ctx, mean),
        rstd=optional(ctx, rstd),
        weight=optional(ctx, weight),
        **rows_cols(ctx, x, 1),
    )


for _rule in (
    Rule("batch_norm", _shape(0), _lower, flops=FLOPS),
    Rule("batch_norm_train", _shape(2), _train_lower, grad=_train_grad, flops=FLOPS),
    Rule("batch_norm_eval", _shape(0), _eval_lower, grad=_eval_grad, flops=FLOPS),
    Rule("batch_norm_grad", _grad_shape, _grad_lower, flops=FLOPS),
):
    register(_rule)
