# SPDX-License-Identifier: Apache-2.0
"""The engine for a loss that is a Python function: documented as slow, because the loop is Python's.

Per batch: a native forward, the function, a native backward and update. Data, order of rows, weighting and
statistics are those of the native engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotloop import _core
from hotloop import metrics as metrics_
from hotloop.compile.plan import Metric, PlanSpec
from hotloop.data import border
from hotloop.engine import EVAL_ROWS, Data, EpochSpec, PassResult, predict, row_weights
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.session import Doubles, Executable, Session, Status


@dataclass(frozen=True)
class CallableEngine:
    """Calls the loss between native steps."""

    session: Session
    graph: Graph
    loss: CallableLoss
    metrics: tuple[str, ...]
    clip_norm: float | None = None
    clip_value: float | None = None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one row of the model's output."""
        return border.row_shape(self.graph.types[self.graph.output])

    def prepare(self, data: Data, batch_size: int) -> CallableTrainPass:
        spec = PlanSpec(
            "vjp", batch_size, self.session.dtype, optimizer=self.session.optimizer.spec(),
            clip_norm=self.clip_norm, clip_value=self.clip_value,
        )  # fmt: skip
        return CallableTrainPass(self, self.session.program(self.graph, spec), data, batch_size)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        inputs = {name: data.arrays[name] for name, _ in self.graph.inputs}
        output = predict(self.session, self.graph, inputs)
        totals = Totals(self.metrics)
        for rows in batches(data.rows, EVAL_ROWS):
            target = data.arrays["target"][rows]
            loss, _ = self.loss(output[rows], target)
            totals.add(loss, row_weights(data, rows), output[rows], target)
            if stop is not None and stop.is_set():
                return PassResult(0, "stopped", totals.read())
        return PassResult(0, "done", totals.read())


@dataclass(frozen=True)
class CallableTrainPass:
    engine: CallableEngine
    executable: Executable
    data: Data
    batch_size: int

    def run(self, spec: EpochSpec, stop: Any, deadline_s: float | None) -> PassResult:
        end = None if deadline_s is None else time.perf_counter() + deadline_s
        order = self._order(spec)
        totals = Totals(self.engine.metrics)
        steps = 0
        status: Status = "done"
        for rows in batches(self.data.rows, self.batch_size):
            self._step(order[rows], spec, steps, totals)
            steps += 1
            last = rows.stop == self.data.rows
            if not np.isfinite(totals.loss).all():
                status = "diverged"
            elif not last and stop is not None and stop.is_set():
                status = "stopped"
            elif not last and end is not None and time.perf_counter() >= end:
                status = "time"
            if status != "done":
                break
        self.engine.session.memory.count_batches(steps)
        return PassResult(steps, status, totals.read())

    def _order(self, spec: EpochSpec) -> border.Array:
        if not spec.shuffle:
            return np.arange(self.data.rows)
        seed = self.engine.session.seed
        return _core.permutation(self.data.rows, seed=seed, run=spec.run, epoch=spec.epoch)

    def _step(self, rows: border.Array, spec: EpochSpec, step: int, totals: Totals) -> None:
        """One batch: native forward, the function, native backward and update."""
        exe, session, count = self.executable, self.engine.session, len(rows)
        for name, _ in self.engine.graph.inputs:
            exe.buffer(name, count)[...] = self.data.arrays[name][rows].ravel()
        run = {"seed": session.seed, "run": spec.run, "step": spec.step + step, "params": spec.params[step]}
        begin, end = exe.plan.section("forward")
        exe.program.run(exe.team, count, begin=begin, end=end, **run)
        shape = self.engine.output_shape
        output = exe.buffer("output", count).reshape(count, *shape).copy()
        target = self.data.arrays["target"][rows]
        loss, gradient = self.engine.loss(output, target)
        weight = row_weights(self.data, rows)
        totals.add(loss, weight, output, target)
        if weight.any():  # a batch of zero weights changes nothing
            share = (weight / weight.sum()).reshape(count, *(1 for _ in shape))
            exe.buffer("doutput", count)[...] = (gradient * share).ravel()
            exe.program.run(exe.team, count, begin=exe.plan.section("backward")[0], **run)


class Totals:
    """The sums that the plan's statistics steps would make, for losses outside the plan."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._names = tuple(metrics)
        self._kinds = metrics_.kinds(metrics)
        self.loss = np.zeros(2)
        self._blocks: dict[str, Doubles] = {}

    def add(self, loss: Doubles, weight: Doubles, output: border.Array, target: border.Array) -> None:
        """Count one batch: its losses and weights (n,), outputs (n, ...) and targets."""
        self.loss += [np.dot(weight, loss), weight.sum()]
        for kind in self._kinds:
            block = _accuracy(output, target) if kind == "accuracy" else _regression(output, target)
            self._blocks[kind] = self._blocks[kind] + block if kind in self._blocks else block

    def read(self) -> dict[str, float]:
        blocks = {"loss": self.loss, **self._blocks}
        metrics, at = [], 0
        for kind, block in blocks.items():
            metrics.append(Metric(kind, kind, at, len(block)))  # type: ignore[arg-type]
            at += len(block)
        return metrics_.finalize(metrics, np.concatenate(list(blocks.values())), self._names)


def _accuracy(output: border.Array, target: border.Array) -> Doubles:
    """[rows whose largest output is at the label (n,) or at the largest target (n, C), rows]"""
    labels = target if target.ndim == 1 else target.argmax(axis=1)
    return np.array([np.count_nonzero(output.argmax(axis=1) == labels), len(output)], np.float64)


def _regression(output: border.Array, target: border.Array) -> Doubles:
    """RegressionStats of args.h: [rows, then per column: sum (p-t)^2, sum |p-t|, sum t, sum t^2]"""
    p, t = (a.reshape(len(output), -1).astype(np.float64) for a in (output, target))
    columns = np.stack([((p - t) ** 2).sum(0), abs(p - t).sum(0), t.sum(0), (t**2).sum(0)], axis=1)
    return np.concatenate([[len(output)], columns.ravel()])


def batches(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows, in order."""
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))
