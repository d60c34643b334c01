# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set: training, evaluation or prediction, each one native call.

`Engine` is what the fit loop needs; `NativeEngine` serves every loss that is part of the plan, and
callable_engine.py the losses that are Python functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from hotloop import metrics as metrics_
from hotloop.compile.plan import LossSpec, PlanSpec
from hotloop.data import border
from hotloop.graph import Graph
from hotloop.session import Doubles, Executable, Session, Status

#: Rows per batch of evaluation and prediction. The results of a row do not depend on it; 256 rows fill the
#: kernels' tiles, and keep the arena of common networks within a level-2 cache.
EVAL_ROWS = 256


@dataclass(frozen=True)
class Data:
    """A checked data set: inputs by name, "target", and "sample_weight" if there is one."""

    arrays: border.Arrays
    kind: Literal["index", "real"]

    @property
    def rows(self) -> int:
        return border.row_count(self.arrays)

    @property
    def weighted(self) -> bool:
        return "sample_weight" in self.arrays


@dataclass(frozen=True)
class PassResult:
    """How a pass ended: steps run, why it ended, and its metrics ("loss" first)."""

    steps: int
    status: Status
    metrics: dict[str, float]


@dataclass(frozen=True)
class EpochSpec:
    """Where an epoch stands in its run; ``params`` has one row per step."""

    run: int
    epoch: int
    step: int
    shuffle: bool
    params: Doubles


class Engine(Protocol):
    """What the fit loop needs."""

    def prepare(self, data: Data, batch_size: int) -> TrainPass: ...

    def evaluate(self, data: Data, stop: Any = None) -> PassResult: ...


class TrainPass(Protocol):
    """A data set made ready for training."""

    @property
    def executable(self) -> Executable: ...

    def run(self, spec: EpochSpec, stop: Any, deadline_s: float | None) -> PassResult: ...


def row_weights(data: Data, rows: Any) -> Doubles:
    """The sample weights of some rows in double; ones if there are none."""
    target = data.arrays["target"][rows]
    return data.arrays["sample_weight"][rows].astype(np.float64) if data.weighted else np.ones(len(target))


def predict(session: Session, graph: Graph, arrays: border.Arrays) -> border.Array:
    """Raw outputs (n, ...) in the session's float type; n may be 0."""
    rows = border.row_count(arrays)
    out: border.Array = np.empty((rows, *border.row_shape(graph.types[graph.output])), session.real)
    if rows:
        exe = session.program(graph, PlanSpec("predict", EVAL_ROWS, session.dtype))
        params = session.params_table(exe.plan, graph)
        outputs = [(exe.plan.outputs[0][1], out)]
        session.run_epoch(exe, exe.source(arrays), batch_size=EVAL_ROWS, params=params, outputs=outputs)
    return out


@dataclass(frozen=True)
class NativeEngine:
    """Loss, statistics and update are steps of the plan."""

    session: Session
    graph: Graph
    loss: LossSpec
    metrics: tuple[str, ...]
    clip_norm: float | None = None
    clip_value: float | None = None

    def train_spec(self, data: Data, max_rows: int) -> PlanSpec:
        """What the training program of such data is compiled for."""
        return PlanSpec(
            "train", max_rows, self.session.dtype, self.loss, data.kind, data.weighted,
            self.session.optimizer.spec(), self.clip_norm, self.clip_value, metrics_.kinds(self.metrics),
        )  # fmt: skip

    def eval_spec(self, data: Data) -> PlanSpec:
        """What the evaluation program of such data is compiled for."""
        return PlanSpec(
            "eval", EVAL_ROWS, self.session.dtype, self.loss, data.kind, data.weighted,
            metrics=metrics_.kinds(self.metrics),
        )  # fmt: skip

    def prepare(self, data: Data, batch_size: int) -> NativeTrainPass:
        exe = self.session.program(self.graph, self.train_spec(data, batch_size))
        return NativeTrainPass(self, exe, exe.source(data.arrays), batch_size)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        exe = self.session.program(self.graph, self.eval_spec(data))
        params = self.session.params_table(exe.plan, self.graph)
        steps, status = self.session.run_epoch(
            exe, exe.source(data.arrays), batch_size=EVAL_ROWS, params=params, stop=stop
        )
        return PassResult(steps, status, self.read_metrics(exe))

    def read_metrics(self, exe: Executable) -> dict[str, float]:
        """The metrics that the last pass left in the program's block of totals."""
        return metrics_.finalize(exe.plan.metrics, exe.program.metrics, self.metrics)


@dataclass(frozen=True)
class NativeTrainPass:
    engine: NativeEngine
    executable: Executable
    source: Any
    batch_size: int

    def run(self, spec: EpochSpec, stop: Any, deadline_s: float | None) -> PassResult:
        steps, status = self.engine.session.run_epoch(
            self.executable, self.source, batch_size=self.batch_size, shuffle=spec.shuffle, run=spec.run,
            epoch=spec.epoch, step=spec.step, params=spec.params, stop=stop, deadline_s=deadline_s,
            check_finite=True,
        )  # fmt: skip
        return PassResult(steps, status, self.engine.read_metrics(self.executable))
