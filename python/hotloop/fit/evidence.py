# SPDX-License-Identifier: Apache-2.0
"""Gathers a run's evidence: sizes and scales when it begins, norms at few epochs, and how it ended.

Norms are taken at epochs 1, 2, 4, 8, ... and the last: their cost falls with the length of the run, and two
runs of the same bits take the same ones, whatever the clock says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hotloop.compile.plan import LossSpec, ParamEntry
from hotloop.engine.native import Data, row_weights
from hotloop.evidence import DataSet, Divergence, Evidence, InputScale, NormSample, Number, Parameter, Setup
from hotloop.fit.job import FitJob
from hotloop.fit.witness import Witness, labels_of, spread
from hotloop.graph import Graph
from hotloop.losses import CallableLoss

#: Rows whose scale is looked at, rows for the best constant, and elements of a parameter that a norm reads.
_SCALE_ROWS, _BASELINE_ROWS, _NORM_ELEMENTS = 1000, 1 << 14, 1 << 16
_SCALE_ELEMENTS = 1 << 13  # numbers of an input whose mean and deviation are taken
_BASELINE_ELEMENTS = 1 << 18  # numbers of a target of many columns that the best constant is looked for in
_CONSTANT_ROWS = 1 << 16  # rows in which a column has to be constant to be called so
_LINE = 16  # floats in a cache line, which are as cheap to read as one
_NORM_OPS = frozenset({"batch_norm", "layer_norm", "rms_norm"})


class EvidenceLog:
    """Writes the evidence of one job into its history."""

    def __init__(self, job: FitJob) -> None:
        self._history, self._memory = job.history, job.session.memory
        self._witness = Witness(job.session, job.graph, loss_kind(job.engine.loss), job.train.sample)
        stored = self._history.evidence
        if stored is None:
            self._history.evidence = gather(job)
        else:
            norms = stored.norms
            if job.resumed is not None and job.resumed.record.ended is None:
                # where it was cut off it took one more, of an epoch that is not its last any longer
                norms = tuple(n for n in norms if _power_of_two(n.epoch))
            self._history.evidence = replace(stored, norms=norms, divergence=None, look=None)

    def epoch_end(self, epoch: int) -> None:
        """An epoch (1-based) ended; its last gradient still stands in memory."""
        if _power_of_two(epoch):
            self.sample(epoch)

    def sample(self, epoch: int) -> None:
        """Take the norms now, unless this epoch has some."""
        evidence = self._history.evidence
        assert evidence is not None
        if evidence.norms and evidence.norms[-1].epoch >= epoch:
            return
        native, entries = self._memory.native, self._memory.layout.entries
        norms = NormSample(epoch, norms_of(native.gradients, entries), norms_of(native.parameters, entries))
        self._history.evidence = replace(evidence, norms=(*evidence.norms, norms))

    def run_ended(self, divergence: Divergence | None) -> None:
        """The run ended, and the rollback is done."""
        evidence = self._history.evidence
        assert evidence is not None
        self._history.evidence = replace(evidence, divergence=divergence)
        self._witness.run_ended()
        self._history.await_look(self._witness)


def gather(job: FitJob) -> Evidence:
    """What is known before the first step."""
    loss, optimizer, stopping = job.engine.loss, job.session.optimizer, job.early_stopping
    dropout = [node.attr["p"] for node in job.graph.nodes if node.op == "dropout"]
    setup = Setup(
        loss=loss.kind if isinstance(loss, LossSpec) else loss.name, optimizer=type(optimizer).__name__, lr=optimizer.lr,
        momentum=float(getattr(optimizer, "momentum", 0.0)), weight_decay=optimizer.weight_decay, schedule=type(job.schedule).__name__,
        batch_size=job.batch_size, epochs=job.epochs, steps_per_epoch=job.steps_per_epoch,
        patience=stopping.patience if stopping else None, min_delta=stopping.min_delta if stopping else 0.0,
        baseline=stopping is not None and stopping.baseline is not None,
        clip_norm=getattr(job.engine, "clip_norm", None), dropout=float(max(dropout, default=0.0)),
        class_weight=isinstance(loss, LossSpec) and (loss.class_weight or loss.pos_weight) is not None,
        restore_best=job.restore_best,
    )  # fmt: skip
    return Evidence(
        setup=setup,
        train=data_set("train", job.train, loss),
        validation=tuple(data_set(name, data, loss) for name, data in job.validation.items()),
        inputs=tuple(_scales(job.graph, job.train.sample)),
        parameters=parameters(job),
    )


def loss_kind(loss: LossSpec | CallableLoss) -> str:
    """The kind of a loss; "" of a callable, whatever its name."""
    return loss.kind if isinstance(loss, LossSpec) else ""


def parameters(job: FitJob) -> tuple[Parameter, ...]:
    """The parameters in the order of the flat memory."""
    readers = {v: node.op for node in reversed(job.graph.nodes) for v in node.inputs if v is not None}
    ops = {name: readers.get(value, "") for name, value in job.graph.parameters}
    return tuple(
        Parameter(e.name, e.size, ops[e.name], len(e.shape) > 1) for e in job.session.memory.layout.entries
    )


# --- data -----------------------------------------------------------------------------------------


def data_set(name: str, data: Data, loss: LossSpec | CallableLoss) -> DataSet:
    """Rows, classes and baselines of a checked data set; of a stream, those of its first block."""
    some = data.sample
    labels = labels_of(some, loss_kind(loss))
    counts = None if labels is None else np.bincount(labels)
    return DataSet(
        name=name,
        rows=some.rows,
        baseline=_finite(_baseline(some, loss)) if isinstance(loss, LossSpec) else None,
        majority=None if counts is None else float(counts.max() / some.rows),
        classes=None if counts is None else tuple(map(int, counts)),
    )


def _baseline(data: Data, loss: LossSpec) -> float:
    """The mean loss of the best constant prediction, weighted as the run's."""
    all_targets = data.arrays["target"]
    columns = max(all_targets[:1].size, 1)
    some = spread(data.rows, min(_BASELINE_ROWS, max(_BASELINE_ELEMENTS // columns, 64)))
    target = all_targets[some]
    weight = row_weights(data, some)
    if loss.kind == "cross_entropy":
        return _entropy_baseline(target, weight, loss)
    t = target.reshape(len(target), -1).astype(np.float64)
    if not weight.any():
        return math.nan
    mean = np.average(t, axis=0, weights=weight)
    if loss.kind == "bce_with_logits":
        positive = mean * np.asarray(loss.pos_weight if loss.pos_weight is not None else 1.0)
        odds = positive / np.maximum(positive + 1 - mean, 1e-300)
        return float(np.mean(-positive * _log(odds) - (1 - mean) * _log(1 - odds)))
    if loss.kind == "mse":
        return float(np.mean(np.average((t - mean) ** 2, axis=0, weights=weight)))
    error = np.abs(t - np.median(t, axis=0))  # where mae is least, and huber nearly so
    if loss.kind == "huber":
        small = np.minimum(error, loss.delta)
        error = small * (error - 0.5 * small)
    return float(np.mean(np.average(error, axis=0, weights=weight)))


def _entropy_baseline(target: Any, weight: Any, loss: LossSpec) -> float:
    """The entropy of the classes' shares, smoothed as the labels are."""
    if target.ndim == 1:
        if loss.class_weight is not None:
            weight = weight * np.asarray(loss.class_weight)[target]
        shares = np.bincount(target, weights=weight)
    else:
        shares = weight @ target.astype(np.float64)
    if not shares.sum() > 0:
        return math.nan
    shares = shares / shares.sum()
    shares = (1 - loss.label_smoothing) * shares + loss.label_smoothing / len(shares)
    return float(-shares @ _log(shares))


def _log(x: Any) -> Any:
    """log x; 0 where x is 0, since it is multiplied by x."""
    return np.log(np.where(x > 0, x, 1.0))


def _scales(graph: Graph, data: Data) -> list[InputScale]:
    """The scale of each input of real numbers."""
    found = []
    for name, value in graph.inputs:
        if graph.types[value].dtype != "real":
            continue
        first = next((node.op for node in graph.nodes if value in node.inputs), "")
        found.append(_scale(name, data.arrays[name], normalized=first in _NORM_OPS))
    return found


def _scale(name: str, array: Any, *, normalized: bool) -> InputScale:
    """The scale of the columns of an array (rows, ...): which are constant from many rows, the rest from as
    many as are cheap."""
    table = _some(array, _SCALE_ROWS)
    few = max(_SCALE_ELEMENTS // table.shape[1], 64)
    part = _some(table, few).astype(np.float64)
    mean = np.add.reduce(part, axis=0) / len(part)
    part -= mean
    std = np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))
    where = np.flatnonzero(std <= 1e-7 * np.abs(mean))  # rounding is all that a constant's spread can be
    constant = where[(table[:, where] == table[0, where]).all(axis=0)]
    if constant.size:  # a column may vary in few rows only, as the rim of an image does
        constant = _still_constant(array, table[0], constant)
    varying = np.delete(std, where)
    return InputScale(
        name=name,
        columns=table.shape[1],
        rows=len(table),
        mean=float(np.abs(mean).max()),
        std_min=float(varying.min()) if varying.size else 0.0,
        std_max=float(varying.max()) if varying.size else 0.0,
        worst=int(np.maximum(np.abs(mean), std).argmax()),
        constant=len(constant),
        constant_nonzero=int(np.count_nonzero(table[0, constant])),
        first_constant=int(constant[0]) if constant.size else None,
        normalized=normalized,
    )


def _still_constant(array: Any, first: Any, columns: Any) -> Any:
    """Those of the columns that are as in the ``first`` row in many rows, which are read a few at a time."""
    step = spread(len(array), _CONSTANT_ROWS).step
    for at in range(0, len(array), step * _SCALE_ROWS):
        part = array[at : at + step * _SCALE_ROWS : step]
        columns = columns[(part.reshape(len(part), -1)[:, columns] == first[columns]).all(axis=0)]
        if not columns.size:
            break
    return columns


def _some(array: Any, rows: int) -> Any:
    """About so many rows, evenly from all, as a table (rows, columns)."""
    part = array[spread(len(array), rows)]
    return part.reshape(len(part), -1)


# --- norms ----------------------------------------------------------------------------------------


def norms_of(flat: Any, entries: Sequence[ParamEntry]) -> tuple[Number, ...]:
    """The Euclidean norm of each parameter in the flat memory. Sums without a BLAS's, which may depend on its
    threads."""
    if flat.size > _NORM_ELEMENTS or not entries:
        return tuple(norm(flat[e.offset : e.offset + e.size]) for e in entries)
    # each sum ends where the next parameter begins; what lies between is zero
    squares = np.multiply(flat, flat, dtype=np.float64)
    sums = np.add.reduceat(squares, [e.offset for e in entries]).tolist()
    return tuple(_finite(math.sqrt(square)) if square >= 0 else None for square in sums)


def norm(flat: Any) -> Number:
    """The Euclidean norm of a parameter's elements; of a large one estimated from cache lines evenly spread
    over it."""
    size = flat.size
    if size > _NORM_ELEMENTS:
        lines = flat[: size - size % _LINE].reshape(-1, _LINE)
        flat = lines[:: -(-size // _NORM_ELEMENTS)]
        square = float(np.einsum("ij,ij->", flat, flat, dtype=np.float64)) * size / flat.size
    else:
        square = float(np.einsum("i,i->", flat, flat, dtype=np.float64))
    return _finite(math.sqrt(square)) if square >= 0 else None


def _finite(value: float) -> Number:
    return value if math.isfinite(value) else None


def _power_of_two(n: int) -> bool:
    return n & (n - 1) == 0
