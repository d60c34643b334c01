# SPDX-License-Identifier: Apache-2.0
"""layer_norm, rms_norm and batch_norm.

Forward ops give what their gradients read beside y: a statistic that nobody reads is never written. The
traced ``batch_norm`` does not know its mode; compiling turns it into ``batch_norm_train`` or
``batch_norm_eval``.
"""

from __future__ import annotations

from typing import Any

from hotloop.errors import InternalError, ShapeError
from hotloop.graph import Affine, Node, TensorType, product
from hotloop.ops.dims import Shape, expect_shape, per_element, present, real, show
from hotloop.ops.registry import Emitter, Lowering, Rule, ShapeRule, Types, register

Gradients = tuple["int | None", ...]
#: flops per element: mean, variance, normalize, scale, shift
PASSES = 8


def _value(ctx: Lowering, value: int | None) -> Any:
    return None if value is None else ctx.value(value)


def _used(ctx: Lowering, value: int) -> Any:
    """The operand of an output that may be absent."""
    return ctx.value(value) if ctx.is_used(value) else None


def _split(x: TensorType, n_axes: int, where: str) -> tuple[Shape, Shape]:
    """Leading dimensions (rows) and the normalized ones (columns)."""
    if not 1 <= n_axes <= x.rank or product(x.shape[x.rank - n_axes :]).per_row:
        raise ShapeError(
            f"[{where}] cannot normalize the last {n_axes} axes of {show(x.shape)}; not over the batch"
        )
    return x.shape[: x.rank - n_axes], x.shape[x.rank - n_axes :]


def _rows_cols(ctx: Lowering, value: int | None, n_axes: int) -> dict[str, Affine]:
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
        mean=_used(ctx, mean),
        rstd=_used(ctx, rstd),
        x=_value(ctx, x),
        weight=_value(ctx, weight),
        bias=_value(ctx, bias),
        eps=node.attr["eps"],
        **_rows_cols(ctx, x, node.attr["n_axes"]),
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
        rstd=_used(ctx, rstd),
        x=_value(ctx, x),
        weight=_value(ctx, weight),
        eps=node.attr["eps"],
        **_rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _input_grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[0], "norm_grad"),)


def _param_grad_shape(n_outputs: int) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        _, cols = _split(real(types[0], "norm_param_grad"), attrs["n_axes"], "norm_param_grad")
        return (TensorType(cols),) * n_outputs

    return shape


def _layer_norm_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, mean, rstd, weight = node.inputs
    ctx.step(
        "layer_norm_bwd",
        dx=ctx.value(node.outputs[0]),
        dy=_value(ctx, dy),
        x=_value(ctx, x),
        mean=_value(ctx, mean),
        rstd=_value(ctx, rstd),
        weight=_value(ctx, weight),
        **_rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _layer_norm_param_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, mean, rstd = node.inputs
    ctx.step(
        "layer_norm_param_bwd",
        dweight=_used(ctx, node.outputs[0]),
        dbias=_used(ctx, node.outputs[1]),
        dy=_value(ctx, dy),
        x=_value(ctx, x),
        mean=_value(ctx, mean),
        rstd=_value(ctx, rstd),
        **_rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _rms_norm_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, rstd, weight = node.inputs
    ctx.step(
        "rms_norm_bwd",
        dx=ctx.value(node.outputs[0]),
        dy=_value(ctx, dy),
        x=_value(ctx, x),
        rstd=_value(ctx, rstd),
        weight=_value(ctx, weight),
        **_rows_cols(ctx, x, node.attr["n_axes"]),
    )


def _rms_norm_param_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, rstd = node.inputs
    ctx.step(
        "rms_norm_param_bwd",
        dweight=ctx.value(node.outputs[0]),
        dy=_value(ctx, dy),
        x=_value(ctx, x),
        rstd=_value(ctx, rstd),
        **_rows_cols(ctx, x, node.attr["n_axes"]),
    )


# ---- batch_norm(x (rows, cols), weight?, bias?, running_mean?, running_var?; eps, momentum) -> y


def _batch_norm_shape(n_statistics: int) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        x = real(types[0], "batch_norm")
        if x.rank != 2 or not isinstance(x.shape[1], int):
            raise ShapeError(f"[batch_norm] the input must be (rows, channels), got {show(x.shape)}")
        columns = TensorType(x.shape[1:])
        for parameter in types[1:]:
            expect_shape(parameter, columns.shape, "batch_norm")
        return (x, *(columns,) * n_statistics)

    return shape


def _batch_norm_lower(ctx: Lowering, node: Node) -> None:
    raise InternalError("[batch_norm] was not turned into its training or evaluation form before lowering")


def _batch_norm_train_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    x, weight, bias = node.inputs[:3]
    _, mean, rstd = node.outputs
    dx, dweight, dbias = g.emit("batch_norm_grad", douts[0], x, mean, rstd, weight)
    return dx, None if weight is None else dweight, None if bias is None else dbias, None, None


def _batch_norm_fields(ctx: Lowering, node: Node) -> dict[str, Any]:
    x, weight, bias, running_mean, running_var = node.inputs
    return {
        "y": ctx.value(node.outputs[0]),
        "running_mean": _value(ctx, running_mean),
        "running_var": _value(ctx, running_var),
        "x": _value(ctx, x),
        "weight": _value(ctx, weight),
        "bias": _value(ctx, bias),
        "eps": node.attr["eps"],
        **_rows_cols(ctx, x, 1),
    }


def _batch_norm_train_lower(ctx: Lowering, node: Node) -> None:
    _, mean, rstd = node.outputs
    ctx.step(
        "batch_norm_fwd",
        mean=ctx.value(mean),
        rstd=ctx.value(rstd),
        momentum=node.attr["momentum"],
        **_batch_norm_fields(ctx, node),
    )


def _batch_norm_eval_lower(ctx: Lowering, node: Node) -> None:
    ctx.step("batch_norm_eval", **_batch_norm_fields(ctx, node))


def _batch_norm_grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    dy = real(types[0], "batch_norm_grad")
    return (dy, TensorType(dy.shape[1:]), TensorType(dy.shape[1:]))


def _batch_norm_grad_lower(ctx: Lowering, node: Node) -> None:
    dy, x, mean, rstd, weight = node.inputs
    dx, dweight, dbias = node.outputs
    ctx.step(
        "batch_norm_bwd",
        dx=ctx.value(dx),
        dweight=_used(ctx, dweight),
        dbias=_used(ctx, dbias),
        dy=_value(ctx, dy),
        x=_value(ctx, x),
        mean=_value(ctx, mean),
        rstd=_value(ctx, rstd),
        weight=_value(ctx, weight),
        **_rows_cols(ctx, x, 1),
    )


register(
    Rule(
        "layer_norm",
        _forward_shape("layer_norm", 2),
        _layer_norm_lower,
        grad=_layer_norm_grad,
        flops=per_element(PASSES),
    )
)
register(Rule("layer_norm_grad", _input_grad_shape, _layer_norm_grad_lower, flops=per_element(PASSES)))
register(
    Rule(
        "layer_norm_param_grad", _param_grad_shape(2), _layer_norm_param_grad_lower, flops=per_element(PASSES)
    )
)
register(
    Rule(
        "rms_norm",
        _forward_shape("rms_norm", 1),
        _rms_norm_lower,
        grad=_rms_norm_grad,
        flops=per_element(PASSES),
    )
)
register(Rule("rms_norm_grad", _input_grad_shape, _rms_norm_grad_lower, flops=per_element(PASSES)))
register(
    Rule("rms_norm_param_grad", _param_grad_shape(1), _rms_norm_param_grad_lower, flops=per_element(PASSES))
)
register(Rule("batch_norm", _batch_norm_shape(0), _batch_norm_lower, flops=per_element(PASSES)))
register(
    Rule(
        "batch_norm_train",
        _batch_norm_shape(2),
        _batch_norm_train_lower,
        grad=_batch_norm_train_grad,
        flops=per_element(PASSES),
    )
)
register(Rule("batch_norm_eval", _batch_norm_shape(0), _batch_norm_eval_lower, flops=per_element(PASSES)))
register(Rule("batch_norm_grad", _batch_norm_grad_shape, _batch_norm_grad_lower, flops=per_element(PASSES)))
