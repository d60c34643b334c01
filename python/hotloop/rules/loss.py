# SPDX-License-Identifier: Apache-2.0
"""Losses, row weights and statistics: what stands between a model's prediction and its gradient.

Each loss ``kind`` is three ops over one kernel: ``kind`` gives the loss of every row, ``kind_grad`` its
gradient, ``kind_fused`` both in one pass (what fusion leaves in a training plan). Statistics have no
outputs: they add to the plan's block of doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hotloop.errors import DTypeError, ShapeError
from hotloop.graph import Affine, Node, Rows, TensorType, product
from hotloop.rules.dims import expect_shape, real, shape_from_attr, show
from hotloop.rules.registry import Emitter, Lowering, Rule, Types, register

#: One value per row of the batch.
PER_ROW = TensorType((Rows(),))

#: Losses and the floating-point operations they take per element of the prediction: a logarithm or an
#: exponential counts as the polynomial of about ten operations that it is.
LOSSES: dict[str, int] = {"cross_entropy": 14, "mse": 3, "mae": 3, "huber": 5, "bce_with_logits": 26}


def rows_and_cols(prediction: TensorType) -> tuple[Affine, Affine]:
    """A prediction (B, ...) as the matrix (rows, cols) that the loss kernels read."""
    return product(prediction.shape[:1]), product(prediction.shape[1:])


def check_prediction(kind: str, prediction: TensorType | None) -> TensorType:
    """Raises `ShapeError` for an output that the loss ``kind`` cannot be taken of."""
    prediction = real(prediction, kind)
    shape = show(prediction.shape)
    if prediction.shape[:1] != (Rows(),):
        raise ShapeError(
            f"[{kind}] the model's output has shape {shape}; allowed is one entry per row, (B, ...); "
            "keep the batch as the first dimension"
        )
    if kind == "cross_entropy" and prediction.rank != 2:
        raise ShapeError(
            f"[cross_entropy] the model's output has shape {shape}; allowed is (B, C), one logit per class; "
            "end the model with nn.Linear(..., n_classes)"
        )
    if kind == "cross_entropy" and prediction.shape[1] == 1:
        raise ShapeError(
            f"[cross_entropy] the model's output has shape {shape}; allowed is (B, C) with C >= 2 classes; "
            'give the last layer an output per class, or use loss="bce_with_logits" for a single logit'
        )
    return prediction


def check_target(kind: str, prediction: TensorType, target: TensorType | None) -> None:
    """Class labels are (B) of integers, for cross_entropy alone; all else has the prediction's shape."""
    if target is None:
        raise ShapeError(f"[{kind}] the target is missing")
    if target.dtype == "index" and kind == "cross_entropy":
        if target.shape != PER_ROW.shape:
            raise ShapeError(f"[cross_entropy] class labels have shape {show(target.shape)}; allowed is (B,)")
        return
    if target.dtype != "real":
        raise DTypeError(
            f"[{kind}] the target holds integers; allowed are reals of shape {show(prediction.shape)}; "
            'convert it with y.astype("float32"), or use loss="cross_entropy" for class labels'
        )
    expect_shape(target, prediction.shape, kind)


def _check(kind: str, types: Types) -> TensorType:
    prediction = check_prediction(kind, types[0])
    check_target(kind, prediction, types[1])
    if types[2] is not None:
        expect_shape(types[2], (rows_and_cols(prediction)[1].const,), kind)
    return prediction


def _required(node: Node) -> tuple[int, int]:
    """The first two inputs, which are never absent."""
    first, second = node.inputs[:2]
    assert first is not None
    assert second is not None
    return first, second


def lower_loss(ctx: Lowering, kind: str, node: Node, *, row_loss: int | None, dpred: int | None) -> None:
    """One call of the kernel of a loss. ``node`` reads (prediction, target, pos_weight or None[, drow])."""
    prediction, target = _required(node)
    pos_weight, drow = (*node.inputs[2:], None)[:2]
    rows, cols = rows_and_cols(ctx.type(prediction))

    def value(v: int | None) -> Any:
        return None if v is None else ctx.value(v)

    shared: dict[str, Any] = {"row_loss": value(row_loss), "drow": value(drow), "rows": rows, "cols": cols}
    if kind == "cross_entropy":
        labels = target if ctx.type(target).dtype == "index" else None
        ctx.step(
            kind,
            dlogits=value(dpred),
            logits=value(prediction),
            labels=value(labels),
            probs=value(target if labels is None else None),
            label_smoothing=node.attr.get("label_smoothing", 0.0),
            **shared,
        )
    else:
        ctx.step(
            kind,
            dpred=value(dpred),
            pred=value(prediction),
            target=value(target),
            pos_weight=value(pos_weight),
            p0=node.attr.get("p0", 0.0),
            **shared,
        )


def _register_loss(kind: str, per_element: int) -> None:
    def flops(times: int) -> Callable[[Types, dict[str, Any]], Affine]:
        def count(types: Types, attrs: dict[str, Any]) -> Affine:
            assert types[0] is not None
            return types[0].size * (per_element * times)

        return count

    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        _check(kind, types)
        return (PER_ROW,)

    def grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        expect_shape(types[3], PER_ROW.shape, kind)
        return (_check(kind, types),)

    def fused_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        return (PER_ROW, *grad_shape(types, attrs))

    def grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*g.emit(f"{kind}_grad", *node.inputs, douts[0], **node.attr), None, None)

    def reference(g: Emitter, node: Node) -> tuple[int, ...]:
        row_loss = g.emit(kind, *node.inputs[:3], **node.attr)
        return row_loss + g.emit(f"{kind}_grad", *node.inputs, **node.attr)

    def lower(ctx: Lowering, node: Node) -> None:
        lower_loss(ctx, kind, node, row_loss=node.outputs[0], dpred=None)

    def lower_grad(ctx: Lowering, node: Node) -> None:
        lower_loss(ctx, kind, node, row_loss=None, dpred=node.outputs[0])

    def lower_fused(ctx: Lowering, node: Node) -> None:
        lower_loss(ctx, kind, node, row_loss=node.outputs[0], dpred=node.outputs[1])

    register(Rule(kind, shape, lower, grad=grad, flops=flops(1)))
    register(Rule(f"{kind}_grad", grad_shape, lower_grad, flops=flops(1)))
    register(Rule(f"{kind}_fused", fused_shape, lower_fused, reference=reference, flops=flops(2)))


for _kind, _per_element in LOSSES.items():
    _register_loss(_kind, _per_element)


def _row_weight_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    """(sample_weight, class_weight, labels), each may be None -> weight (B), drow (B), total (1)."""
    expect_shape(types[0], PER_ROW.shape, "row_weight")
    if (types[1] is None) != (types[2] is None):
        raise ShapeError("[row_weight] class weights and labels come together, got one of them")
    return PER_ROW, PER_ROW, TensorType((1,), "double")


def _row_weight_lower(ctx: Lowering, node: Node) -> None:
    sample_weight, class_weight, labels = (None if v is None else ctx.value(v) for v in node.inputs)
    weight, drow, total = (ctx.value(v) for v in node.outputs)
    ctx.step(
        "row_weight",
        weight=weight,
        drow=drow,
        total=total,
        sample_weight=sample_weight,
        class_weight=class_weight,
        labels=labels,
        rows=Rows(),
    )


register(Rule("row_weight", _row_weight_shape, _row_weight_lower, flops=lambda types, attrs: Affine(4, 0)))


# ---- statistics: no outputs, so they are never dead code ----


def _no_outputs(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return ()


def _loss_stats_lower(ctx: Lowering, node: Node) -> None:
    row_loss, weight = _required(node)
    ctx.step(
        "loss_stats",
        totals=ctx.metric("loss", "loss", 2),
        loss=ctx.metric("batch_loss", "batch_loss", 1),
        row_loss=ctx.value(row_loss),
        weight=ctx.value(weight),
        rows=Rows(),
    )


def _accuracy_lower(ctx: Lowering, node: Node) -> None:
    prediction, target = _required(node)
    rows, cols = rows_and_cols(ctx.type(prediction))
    is_label = ctx.type(target).dtype == "index"
    ctx.step(
        "accuracy",
        totals=ctx.metric("accuracy", "accuracy", 2),
        logits=ctx.value(prediction),
        labels=ctx.value(target) if is_label else None,
        probs=None if is_label else ctx.value(target),
        rows=rows,
        cols=cols,
    )


def _top_k_accuracy_lower(ctx: Lowering, node: Node) -> None:
    prediction, target = _required(node)
    rows, cols = rows_and_cols(ctx.type(prediction))
    k = node.attr["k"]
    totals = ctx.metric(f"top{k}_accuracy", "top_k", 2)
    logits, labels = ctx.value(prediction), ctx.value(target)
    ctx.step("top_k_accuracy", totals=totals, logits=logits, labels=labels, rows=rows, cols=cols, top_k=k)


def _binary_accuracy_lower(ctx: Lowering, node: Node) -> None:
    prediction, target = _required(node)
    rows, cols = rows_and_cols(ctx.type(prediction))
    totals = ctx.metric("accuracy", "accuracy", 2)
    logits, target_ = ctx.value(prediction), ctx.value(target)
    ctx.step("binary_accuracy", totals=totals, logits=logits, target=target_, rows=rows, cols=cols)


def _regression_stats_lower(ctx: Lowering, node: Node) -> None:
    prediction, target = _required(node)
    rows, cols = rows_and_cols(ctx.type(prediction))
    totals = ctx.metric("regression", "regression", 1 + 4 * cols.const)
    pred, target_ = ctx.value(prediction), ctx.value(target)
    ctx.step("regression_stats", totals=totals, pred=pred, target=target_, rows=rows, cols=cols)


def _first_size(per_element: int) -> Callable[[Types, dict[str, Any]], Affine]:
    def flops(types: Types, attrs: dict[str, Any]) -> Affine:
        assert types[0] is not None
        return types[0].size * per_element

    return flops


register(Rule("loss_stats", _no_outputs, _loss_stats_lower, flops=_first_size(3)))
register(Rule("accuracy", _no_outputs, _accuracy_lower, flops=_first_size(1)))
register(Rule("top_k_accuracy", _no_outputs, _top_k_accuracy_lower, flops=_first_size(2)))
register(Rule("binary_accuracy", _no_outputs, _binary_accuracy_lower, flops=_first_size(2)))
register(Rule("regression_stats", _no_outputs, _regression_stats_lower, flops=_first_size(8)))


# ---- constants ----


def _constant_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    shape = shape_from_attr(attrs["shape"])
    if math.prod(d for d in shape if isinstance(d, int)) != len(attrs["values"]):
        raise ShapeError(f"[constant] {len(attrs['values'])} values do not fill the shape {show(shape)}")
    return (TensorType(shape),)


def _constant_grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return ()


def _constant_lower(ctx: Lowering, node: Node) -> None:
    """No step: the values lie in the plan's constants from the start."""


register(Rule("constant", _constant_shape, _constant_lower, grad=_constant_grad))
