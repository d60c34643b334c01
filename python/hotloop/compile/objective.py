# SPDX-License-Identifier: Apache-2.0
"""Join what a plan is for to the traced model: loss, row weights and statistics.

    train    outputs row_loss, drow, total (what differentiation and the update need); statistics
    vjp      input doutput; output output
    eval     no outputs; statistics
    predict  output output

The training loss of a batch is sum(w_i l_i) / sum(w_i); `row_weight` makes w and the gradient of that mean
with respect to each l_i, which is the seed of differentiation.
"""

from __future__ import annotations

from hotloop.compile.plan import LossSpec, PlanSpec, top_k
from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Attr, Graph, TensorType
from hotloop.rules.loss import LOSSES, PER_ROW, check_prediction, rows_and_cols
from hotloop.rules.registry import GraphBuilder

TARGET, SAMPLE_WEIGHT, DOUTPUT = "target", "sample_weight", "doutput"

#: Statistics by the name users give them, for each loss: the op that gathers them.
STATISTICS: dict[str, dict[str, str]] = {
    "accuracy": {"cross_entropy": "accuracy", "bce_with_logits": "binary_accuracy"},
    "top_k": {"cross_entropy": "top_k_accuracy"},
    "regression": dict.fromkeys(LOSSES, "regression_stats"),
}

#: Statistics that can be had of one type of target only.
_TARGETS = {"top_k_accuracy": "index", "regression_stats": "real"}


def join_objective(graph: Graph, spec: PlanSpec) -> Graph:
    """Raises `GraphError`, `ShapeError` or `DTypeError` where model, loss and target do not fit."""
    builder = GraphBuilder.extend(graph)
    if spec.mode == "predict":
        return builder.build([("output", graph.output)])
    if spec.mode == "vjp":
        _new_input(builder, DOUTPUT, graph.types[graph.output])
        return builder.build([("output", graph.output)])
    if spec.loss is None:
        raise GraphError(
            f"[compile] a plan to {spec.mode} needs a loss, got None; allowed: {', '.join(LOSSES)}"
        )
    if spec.loss.kind not in LOSSES:
        raise GraphError(f"[compile] unknown loss {spec.loss.kind!r}; allowed: {', '.join(LOSSES)}")
    outputs = _join_loss(builder, graph.output, spec, spec.loss)
    return builder.build(outputs if spec.mode == "train" else [])


def _join_loss(
    builder: GraphBuilder, prediction: int, spec: PlanSpec, loss: LossSpec
) -> list[tuple[str, int]]:
    type_ = check_prediction(loss.kind, builder.type(prediction))
    target_type = PER_ROW if spec.target == "index" else type_
    target = _new_input(builder, TARGET, TensorType(target_type.shape, spec.target))
    sample_weight = _new_input(builder, SAMPLE_WEIGHT, PER_ROW) if spec.weighted else None
    class_weight = _class_weight(builder, spec, loss, type_)
    labels = None if class_weight is None else target
    weight, drow, total = builder.emit("row_weight", sample_weight, class_weight, labels)
    pos_weight = _pos_weight(builder, loss, type_)
    (row_loss,) = builder.emit(loss.kind, prediction, target, pos_weight, **_loss_attrs(loss))
    builder.emit("loss_stats", row_loss, weight)
    for name in spec.metrics:
        k = top_k(name)
        op = STATISTICS.get("top_k" if k else name, {}).get(loss.kind)
        if op is None or _TARGETS.get(op, spec.target) != spec.target:
            raise GraphError(
                f"[metrics] {name!r} does not fit the loss {loss.kind!r} with {spec.target} targets; allowed are "
                "accuracy for classes, top-k accuracy for labels and regression for real targets; leave it out"
            )
        builder.emit(op, prediction, target, **({"k": k} if k else {}))
    return [("row_loss", row_loss), ("drow", drow), ("total", total)]


def _new_input(builder: GraphBuilder, name: str, type_: TensorType) -> int:
    if name in dict(builder.inputs):
        raise GraphError(
            f"[compile] the model has an input named {name!r}, a name that plans keep for themselves; "
            "rename forward's argument"
        )
    return builder.input(name, type_)


def _loss_attrs(loss: LossSpec) -> dict[str, Attr]:
    if loss.kind == "cross_entropy":
        return {"label_smoothing": loss.label_smoothing}
    return {"p0": loss.delta} if loss.kind == "huber" else {}


def _class_weight(
    builder: GraphBuilder, spec: PlanSpec, loss: LossSpec, prediction: TensorType
) -> int | None:
    if loss.class_weight is None:
        return None
    if loss.kind != "cross_entropy" or spec.target != "index":
        raise GraphError(
            f"[{loss.kind}] class_weight needs class labels, got {spec.target} targets for {loss.kind}; "
            "give integer labels with cross_entropy, or fold the weights into sample_weight"
        )
    return _constant(builder, loss.class_weight, rows_and_cols(prediction)[1].const, "class_weight")


def _pos_weight(builder: GraphBuilder, loss: LossSpec, prediction: TensorType) -> int | None:
    if loss.pos_weight is None:
        return None
    if loss.kind != "bce_with_logits":
        raise GraphError(f"[{loss.kind}] pos_weight is for bce_with_logits only; leave it out")
    return _constant(builder, loss.pos_weight, rows_and_cols(prediction)[1].const, "pos_weight")


def _constant(builder: GraphBuilder, values: tuple[float, ...], expected: int, name: str) -> int:
    if len(values) != expected:
        raise ShapeError(
            f"[{name}] got {len(values)} values; the model has {expected} output columns; give one for each"
        )
    return builder.emit("constant", values=tuple(map(float, values)), shape=(expected,))[0]
