# SPDX-License-Identifier: Apache-2.0
"""From the arguments of `fit` to a checked job: whatever can be refused is refused here.

Data sets are checked against the model's graph, losses and metrics against the targets, the monitored name
against what the run will report. Nothing of the model changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Union

import numpy as np

from hotloop import losses
from hotloop import metrics as metrics_
from hotloop.arguments import number
from hotloop.compile.plan import LossSpec
from hotloop.compile.specialize import is_frozen_norm
from hotloop.data import border, lazy
from hotloop.data.split import SealedData
from hotloop.data.target import as_target, as_weight
from hotloop.engine.blocks import BlockEngine
from hotloop.engine.callable import CallableEngine
from hotloop.engine.native import Data, Engine, NativeEngine
from hotloop.engine.scored import ScoredEngine
from hotloop.errors import ShapeError
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.runtime.grouping import PLAIN, Grouping
from hotloop.runtime.session import Session
from hotloop.schedules import Constant, Factors, ReduceOnPlateau, Schedule

ResolvedLoss = Union[LossSpec, CallableLoss]
#: (X, y) or (X, y, weight)
DataTuple = Union[tuple[Any, Any], tuple[Any, Any, Any]]
Validation = Union[None, float, DataTuple, Mapping[str, DataTuple]]


def check_loss(loss: Any) -> None:
    """Raises `ValueError` or `TypeError` for what is no loss, as far as that shows without a target."""
    if loss != "auto" and not isinstance(loss, losses.Loss):
        losses.resolve(loss)


def check_decay(ema: float | None) -> float | None:
    """The decay of averaged weights. Raises `TypeError` or `ValueError` unless it is None or in (0, 1)."""
    if ema is None:
        return None
    decay = number("Trainer", "ema", ema)
    if not 0 < decay < 1:
        raise ValueError(
            f"[Trainer] ema must lie between 0 and 1, got {decay:g}; 0.999 averages over some 1000 updates"
        )
    return decay


def _resolve_auto(loss: Any, y: Any, output: tuple[int, ...]) -> Any:
    """What "auto" stands for: by the target's dtype, and binary for labels 0 and 1 and one output column."""
    if not (isinstance(loss, str) and loss == "auto"):
        return loss
    target = np.asarray(next(iter(y.values())) if isinstance(y, Mapping) and y else y)
    labels = target.dtype.kind in "iu" and target.size > 0
    if output == (1,) and labels and 0 <= target.min() <= target.max() <= 1:
        return "bce_with_logits"
    return losses.resolve("auto", target)


def _kind(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "kind", "callable")


def check_data(
    session: Session,
    X: Any,
    y: Any,
    weight: Any,
    loss: Any,
    *,
    where: str,
    name: str = "",
    batch: bool = False,
    in_blocks: bool = False,
) -> tuple[Data, Graph, ResolvedLoss]:
    """A data set in canonical form, with the graph for it and its loss.

    ``name`` stands before X and y in messages about validation sets. A batch may have no weight at all.
    ``in_blocks``: what may be larger than memory is read in blocks, by an engine of `make_engine`.
    """
    prefix = f"{name} " if name else ""
    if y is None:
        raise TypeError(
            f"[{where}] {prefix}y is missing; only the blocks of a stream bring it, and only fit and evaluate take one"
        )
    arrays = border.as_inputs(X, where=where, name=f"{prefix}X", real=session.real, in_blocks=in_blocks)
    graph = session.graph_for(arrays, where)
    arrays = border.fit_inputs(arrays, graph, where=where, name=f"{prefix}X", real=session.real)
    output, rows = border.row_shape(graph.types[graph.output]), border.row_count(arrays)
    if not isinstance(y, (np.ndarray, Mapping)):
        y = border.as_array(y, f"{prefix}y", where=where, real=session.real)
    loss = _resolve_auto(loss, y, output)
    target = as_target(
        y, loss=_kind(loss), output=output, rows=rows, where=where, name=f"{prefix}y", real=session.real
    )
    labels = target.array if target.kind == "index" else None
    resolved = losses.resolve(loss, labels, n_outputs=output[-1] if output else None)
    weights = as_weight(
        weight, rows=rows, where=where, name=f"{prefix}sample_weight", real=session.real, allow_zero=batch
    )
    extra = {} if weights is None else {"sample_weight": weights}
    return Data({**arrays, "target": target.array, **extra}, target.kind), graph, resolved


def make_engine(
    session: Session, graph: Graph, loss: ResolvedLoss, metrics: tuple[str, ...],
    clip_norm: float | None = None, clip_value: float | None = None, accumulate: int = 1,
    ema: float | None = None, grouping: Grouping = PLAIN,
) -> Engine:  # fmt: skip
    """The engine for a loss in the plan, or for a callable; with scorers if ``metrics`` name some.

    Raises `ValueError` for a top-k accuracy that the model's classes do not allow.
    """
    native = metrics_.native(metrics)
    metrics_.check_top_k(native, (border.row_shape(graph.types[graph.output]) or (1,))[-1])
    engine: NativeEngine | CallableEngine
    if isinstance(loss, LossSpec):
        engine = BlockEngine(session, graph, loss, native, clip_norm, clip_value, accumulate, ema, grouping)
    else:
        engine = CallableEngine(
            session, graph, loss, native, clip_norm, clip_value, accumulate, ema, grouping
        )
    scorers = tuple(name for name in metrics if name not in native)
    return ScoredEngine(engine, scorers) if scorers else engine


def check_validation(
    session: Session, validation: Validation, train: Data, graph: Graph, loss: ResolvedLoss, seed: int
) -> tuple[Data, dict[str, Data]]:
    """The training set (less what is held out) and the named validation sets."""
    if validation is None:
        return train, {}
    if isinstance(validation, Mapping):
        if not validation:
            raise ValueError("[fit] validation is an empty mapping; give at least one named set, or None")
        sets = dict(validation)
    elif isinstance(validation, (tuple, list)):
        sets = {"val": validation}
    elif isinstance(validation, SealedData):
        raise TypeError("[fit] validation is the sealed test set; use split.validation")
    else:
        return _hold_out(number("fit", "validation", validation, low=0, high=1), train, seed)
    checked = {}
    for name, parts in sets.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"[fit] names of validation sets must be non-empty strings, got {name!r}")
        if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
            kind = type(parts).__name__
            raise TypeError(f"[fit] validation set {name!r} must be (X, y) or (X, y, weight), got {kind}")
        X, y, weight = (*parts, None)[:3]
        checked[name], other, _ = check_data(
            session, X, y, weight, loss, where="fit", name=name, in_blocks=True
        )
        if other.inputs != graph.inputs or other.types[other.output] != graph.types[graph.output]:
            raise ShapeError(f"[fit] validation set {name!r} has other inputs than the training set")
    return train, checked


def _hold_out(fraction: float, train: Data, seed: int) -> tuple[Data, dict[str, Data]]:
    if not 0 < fraction < 1:
        raise ValueError(f"[fit] validation as a fraction must be in (0, 1), got {fraction:g}")
    if train.rows < 2:
        raise ShapeError(f"[fit] {train.rows} row cannot be split into training and validation; give more")
    labels = train.arrays["target"] if train.kind == "index" else None
    rows = border.hold_out(train.rows, fraction, labels, seed)
    kept, held = (
        Data({name: lazy.subset(a, r) for name, a in train.arrays.items()}, train.kind) for r in rows
    )
    return kept, {"val": held}


def resolve_monitor(monitor: str, metrics: Iterable[str], sets: Sequence[str], *, needed: bool) -> str:
    """The name in the history that is monitored. "val_..." means the first validation set, and the
    training metric without one, unless that is ``needed`` for early stopping. Scorers are no training
    metrics."""
    names = ("loss", *metrics)
    allowed = ["loss", *metrics_.native(metrics), *(f"{s}_{name}" for s in sets for name in names)]
    if monitor in allowed:
        return monitor
    if isinstance(monitor, str) and monitor.startswith("val_") and monitor[4:] in names:
        if sets:
            return f"{sets[0]}_{monitor[4:]}"
        if not needed:
            return monitor[4:]
        raise ValueError(
            f"[fit] early stopping monitors {monitor!r}, but there is no validation data; "
            f"pass validation=0.15, or monitor={monitor[4:]!r}"
        )
    raise ValueError(f"[fit] monitor={monitor!r} is not reported by this run; allowed: {', '.join(allowed)}")


def run_factors(
    schedule: Schedule, lr: float, epochs: int, steps_per_epoch: int, accumulate: int = 1
) -> Factors | None:
    """The schedule's factor for each batch of the run; None where all are 1, however long the run may be.

    The schedule counts updates, of which an epoch has one for every ``accumulate`` batches and one for those
    that are left; the batches of an update share its factor.
    """
    if isinstance(schedule, (Constant, ReduceOnPlateau)) and not schedule.warmup:
        return None
    updates = -(-steps_per_epoch // accumulate)
    factors = schedule.factors(epochs * updates, updates, base_lr=lr).reshape(epochs, updates)
    return np.repeat(factors, accumulate, axis=1)[:, :steps_per_epoch].ravel()


def check_batches(
    graph: Graph, rows: int, batch_size: int, where: str = "fit", frozen: Collection[str] = ()
) -> None:
    """Refuse batches of one row for BatchNorm, unless it is ``frozen``: the variance of one value is 0, and
    its output constant."""
    smallest = rows % batch_size or batch_size
    still = {value for name, value in graph.parameters if name in frozen}
    for node in graph.nodes:
        if node.op != "batch_norm" or node.inputs[0] is None or is_frozen_norm(node, still):
            continue
        first, *rest = graph.types[node.inputs[0]].shape
        places = np.prod([d for d in rest[1:] if isinstance(d, int)], dtype=np.int64)
        if isinstance(first, int) or first.per_row * smallest * places > 1:
            continue
        if rows == 1:
            raise ShapeError(f"[{where}] X has 1 row, and BatchNorm needs at least 2; give more rows")
        raise ShapeError(
            f"[{where}] the last batch has 1 row ({rows} rows in batches of {batch_size}), and BatchNorm needs "
            f"at least 2; use another batch_size, such as {_better_batch_size(rows, batch_size)}"
        )


def _better_batch_size(rows: int, batch_size: int) -> int:
    """The nearest batch size whose last batch has two rows or more."""
    near = sorted(range(2, rows + 1), key=lambda size: (abs(size - batch_size), -size))
    return next(size for size in near if rows % size != 1)
