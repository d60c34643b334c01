# SPDX-License-Identifier: Apache-2.0
"""The engine for a loss that is a Python function: documented as slow, because the loop is Python's.

Per batch: a native forward, the function, a native backward and update. Data, order of rows, weighting and
statistics are those of the native engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hotloop import _core
from hotloop import metrics as metrics_
from hotloop.compile.plan import Metric, PlanSpec, top_k
from hotloop.data import border
from hotloop.engine.native import Data, PassResult, check_totals, predict, row_weights
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.runtime.executable import Executable
from hotloop.runtime.grouping import PLAIN, Grouping, Phase
from hotloop.runtime.session import Doubles, Session, Status


@dataclass(frozen=True)
class CallableEngine:
    """Calls the loss between native steps."""

    session: Session
    graph: Graph
    loss: CallableLoss
    metrics: tuple[str, ...]
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    ema: float | None = None
    grouping: Grouping = PLAIN

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one row of the model's output."""
        return border.row_shape(self.graph.types[self.graph.output])

    def on(self, session: Session) -> CallableEngine:
        return replace(self, session=session)

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> CallableTrainPass:
        return CallableTrainPass(self, data, batch_size, shuffle=shuffle, run=run)

    def program(self, batch_size: int, epoch: int) -> Executable:
        """The program of an epoch (1-based), as things stand."""
        spec = PlanSpec(
            "vjp", batch_size, self.session.dtype, optimizer=self.session.optimizer.spec(),
            clip_norm=self.clip_norm, clip_value=self.clip_value, accumulate=self.accumulate > 1, ema=self.ema,
            trainable=self.session.trainable(self.grouping, epoch),
        )  # fmt: skip
        return self.session.program(self.graph, spec)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        inputs = {name: data.arrays[name] for name, _ in self.graph.inputs}
        output = predict(self.session, self.graph, inputs)
        totals = self.new_totals()
        for rows in batches(data.rows, self.session.eval_rows):
            target = data.arrays["target"][rows]
            loss, _ = self.loss(output[rows], target)
            totals.add(loss, row_weights(data, rows), output[rows], target)
            if stop is not None and stop.is_set():
                return PassResult("stopped", totals.read())
        return PassResult("done", totals.read())

    def new_totals(self) -> Totals:
        return Totals(self.metrics, columns=math.prod(self.output_shape))


class CallableTrainPass:
    """A pass in Python; see `TrainPass` for its methods."""

    def __init__(
        self, engine: CallableEngine, data: Data, batch_size: int, *, shuffle: bool, run: int
    ) -> None:
        self.executable = engine.program(batch_size, 1)
        self._phase: Phase | None = None  # none entered yet
        self._engine, self._data, self._batch_size = engine, data, batch_size
        self._shuffle, self._run = shuffle, run
        self._sums = engine.new_totals()
        self._order: tuple[int, border.Array] = (-1, np.arange(0))  # of which epoch

    def run(
        self, epoch: int, params: Doubles, stop: Any, deadline_s: float | None,
        first_batch: int = 0, batches: int = -1,
    ) -> tuple[int, Status]:  # fmt: skip
        end = None if deadline_s is None else time.perf_counter() + deadline_s
        phase = self._engine.grouping.phase(epoch + 1)
        if phase is not self._phase:
            totals = np.array(self.executable.program.metrics)  # of an epoch that is gone on with
            self.executable = self._engine.program(self._batch_size, epoch + 1)
            self.executable.program.metrics[...] = totals
            self._phase = phase
        self._engine.session.memory.take_frozen(phase.frozen)
        if first_batch == 0:
            self._sums.block[...] = 0
        last = self._n_batches
        stop_at = last if batches < 0 else min(last, first_batch + batches)
        status: Status = "done" if stop_at == last else "paused"
        batch = first_batch
        while batch < stop_at:
            self._step(epoch, batch, params[min(batch, len(params) - 1)])
            batch += 1
            if not np.isfinite(self._sums.block[:2]).all():
                status = "diverged"
            elif batch < stop_at and stop is not None and stop.is_set():
                status = "stopped"
            elif batch < stop_at and end is not None and time.perf_counter() >= end:
                status = "time"
            else:
                continue
            break
        self._engine.session.memory.count_batches(batch - first_batch)
        return batch - first_batch, status

    def metrics(self) -> dict[str, float]:
        return self._sums.read()

    def totals(self) -> Doubles:
        return np.concatenate([self._sums.block, self.executable.program.metrics])

    def load_totals(self, totals: Doubles) -> None:
        native = self.executable.program.metrics
        check_totals(totals, len(self._sums.block) + len(native))
        self._sums.block[...], native[...] = np.split(totals, [len(self._sums.block)])

    @property
    def _n_batches(self) -> int:
        return -(-self._data.rows // self._batch_size)

    def _rows(self, epoch: int, batch: int) -> border.Array:
        """The numbers of the rows of a batch."""
        if self._order[0] != epoch:
            n, seed = self._data.rows, self._engine.session.seed
            order = (
                _core.permutation(n, seed=seed, run=self._run, epoch=epoch) if self._shuffle else np.arange(n)
            )
            self._order = (epoch, order)
        first = batch * self._batch_size
        return self._order[1][first : first + self._batch_size]

    def _step(self, epoch: int, batch: int, params: Doubles) -> None:
        """One batch: native forward, the function, native backward and update."""
        exe, engine, rows = self.executable, self._engine, self._rows(epoch, batch)
        count = len(rows)
        for name, _ in engine.graph.inputs:
            exe.put(name, self._data.arrays[name][rows])
        step = epoch * self._n_batches + batch
        run: dict[str, Any] = {"seed": engine.session.seed, "run": self._run, "step": step, "params": params}
        begin, end = exe.plan.section("forward")
        exe.run(count, begin, end, **run)
        shape = engine.output_shape
        output = exe.get("output", count).reshape(count, *shape)
        target = self._data.arrays["target"][rows]
        loss, gradient = engine.loss(output, target)
        weight = row_weights(self._data, rows)
        self._sums.add(loss, weight, output, target)
        total, each = weight.sum(), engine.accumulate
        if total == 0 and each == 1:
            return  # a batch of zero weights changes nothing
        share = (weight / (total or 1.0)).reshape(count, *(1 for _ in shape))
        exe.put("doutput", gradient * share)
        first, last = batch % each == 0, (batch + 1) % each == 0 or batch + 1 == self._n_batches
        for metric in exe.plan.metrics:
            if metric.kind == "batch_weight":
                exe.program.metrics[metric.offset] = total
        end = len(exe.plan.steps) if last else exe.plan.update
        begin, _ = exe.plan.section("backward")
        exe.run(count, begin, end, first=first, last=last, **run)


class Totals:
    """The sums that the plan's statistics steps would make, for losses outside the plan.

    ``block`` float64 (n,) holds them one after the other, as a program's block of totals does.
    """

    def __init__(self, metrics: Sequence[str], columns: int) -> None:
        self._names = tuple(metrics)
        self._plan = [Metric("loss", "loss", 0, 2)]
        for name in metrics_.kinds(metrics):
            at = self._plan[-1].offset + self._plan[-1].size
            if name == "regression":
                self._plan.append(Metric(name, "regression", at, 1 + 4 * columns))
            else:
                self._plan.append(Metric(name, "top_k" if top_k(name) else "accuracy", at, 2))
        self.block: Doubles = np.zeros(self._plan[-1].offset + self._plan[-1].size)

    def add(self, loss: Doubles, weight: Doubles, output: border.Array, target: border.Array) -> None:
        """Count one batch: its losses and weights (n,), outputs (n, ...) and targets."""
        self.block[:2] += [np.dot(weight, loss), weight.sum()]
        for m in self._plan[1:]:
            if m.kind == "regression":
                sums = _regression(output, target)
            else:
                sums = _accuracy(output, target, top_k(m.name) or 1)
            self.block[m.offset : m.offset + m.size] += sums

    def read(self) -> dict[str, float]:
        return metrics_.finalize(self._plan, self.block, self._names)


def _accuracy(output: border.Array, target: border.Array, k: int) -> Doubles:
    """[rows in which the label (n,), or the largest target (n, C), is among the k largest outputs, rows]"""
    labels = target if target.ndim == 1 else target.argmax(axis=1)
    ranked = np.argsort(-output, axis=1, kind="stable")[:, :k]  # the lower one of equals first
    return np.array([np.count_nonzero(ranked == labels[:, None]), len(output)], np.float64)


def _regression(output: border.Array, target: border.Array) -> Doubles:
    """RegressionStats of args.h: [rows, then per column: sum (p-t)^2, sum |p-t|, sum t, sum t^2]"""
    p, t = (a.reshape(len(output), -1).astype(np.float64) for a in (output, target))
    columns = np.stack([((p - t) ** 2).sum(0), abs(p - t).sum(0), t.sum(0), (t**2).sum(0)], axis=1)
    return np.concatenate([[len(output)], columns.ravel()])


def batches(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` rows, in order."""
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))
