# SPDX-License-Identifier: Apache-2.0
"""One pass over a data set: training, evaluation or prediction, each one native call.

`Engine` is what the fit loop needs; `NativeEngine` serves every loss that is part of the plan, and
callable.py the losses that are Python functions. A training pass can stop and go on after any batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, Union, cast

import numpy as np

from hotloop import metrics as metrics_
from hotloop.compile.plan import LossSpec, PlanSpec
from hotloop.data import border, lazy
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.runtime import direct
from hotloop.runtime.executable import Executable
from hotloop.runtime.grouping import PLAIN, Grouping, Phase
from hotloop.runtime.session import EVAL_ROWS, Doubles, Session, Status


@dataclass(frozen=True)
class Data:
    """A checked data set: inputs by name, "target", and "sample_weight" if there is one."""

    arrays: border.Arrays
    kind: Literal["index", "real"]
    #: Sources on a device, which hold copies: one for each plan's choice of inputs.
    _copies: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def source(self, exe: Executable) -> Any:
        """The inputs of a program, for its passes over these data; a copy on a device is made once."""
        if exe.device is None:
            return exe.source(self.arrays)
        key = exe.device, tuple(name for name, _ in exe.plan.inputs)
        if key not in self._copies:
            self._copies[key] = exe.source(self.arrays)
        return self._copies[key]

    @property
    def rows(self) -> int:
        return border.row_count(self.arrays)

    @property
    def weighted(self) -> bool:
        return "sample_weight" in self.arrays

    @property
    def sample(self) -> Data:
        """Rows that are at hand: all of them, but of a stream its first block."""
        return self

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return -(-self.rows // batch_size)


class PassResult(NamedTuple):
    """How an evaluation ended: why, and its metrics ("loss" first)."""

    status: Status
    metrics: dict[str, float]


class Engine(Protocol):
    """What the fit loop needs."""

    @property
    def session(self) -> Session: ...

    @property
    def graph(self) -> Graph: ...

    @property
    def loss(self) -> Union[LossSpec, CallableLoss]: ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def grouping(self) -> Grouping: ...

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> TrainPass: ...

    def evaluate(self, data: Data, stop: Any = None) -> PassResult: ...

    def on(self, session: Session) -> Engine:
        """The same on another session of the model, such as a replica."""
        ...


class TrainPass(Protocol):
    """A data set made ready for the epochs of one run."""

    @property
    def executable(self) -> Executable: ...

    def run(
        self, epoch: int, params: Doubles, stop: Any, deadline_s: float | None,
        first_batch: int = 0, batches: int = -1,
    ) -> tuple[int, Status]:  # fmt: skip
        """At most ``batches`` (-1: all) of an epoch (0-based): (batches run, why it ended). ``params`` has a
        row for each batch of the epoch, or one for all. Totals go on unless ``first_batch`` is 0."""
        ...

    def metrics(self) -> dict[str, float]:
        """The metrics of the epoch so far, "loss" first."""
        ...

    def totals(self) -> Doubles:
        """A copy of the sums behind the metrics, (n,)."""
        ...

    def load_totals(self, totals: Doubles) -> None:
        """Take over what `totals` gave. Raises `ValueError` for another number of sums."""
        ...


def row_weights(data: Data, rows: Any) -> Doubles:
    """The sample weights of some rows in double; ones if there are none."""
    target = data.arrays["target"][rows]
    return data.arrays["sample_weight"][rows].astype(np.float64) if data.weighted else np.ones(len(target))


def checked_inputs(
    session: Session, X: Any, where: str, *, name: str, allow_empty: bool = False, in_blocks: bool = False
) -> tuple[border.Arrays, Graph]:
    """X in canonical form, and the graph for it. Raises as the border does."""
    arrays = border.as_inputs(
        X, where=where, name=name, real=session.real, allow_empty=allow_empty, in_blocks=in_blocks
    )
    graph = session.graph_for(arrays, where)
    return border.fit_inputs(arrays, graph, where=where, name=name, real=session.real), graph


def predict_any(session: Session, X: Any, where: str, *, name: str = "X") -> border.Array:
    """Raw outputs (n, ...) for an array or a mapping of named arrays, checked; n may be 0."""
    found = direct.call(session, "predict", X)
    if found is not None:
        array: border.Array = found[0]
        return array
    arrays, graph = checked_inputs(session, X, where, name=name, allow_empty=True, in_blocks=True)
    out = predict(session, graph, arrays)
    if 0 < len(out) <= EVAL_ROWS:  # what is larger is worth a look at it
        direct.remember(session, "predict", _predictor(session, graph), X)
    return out


def _predictor(session: Session, graph: Graph) -> Executable:
    return session.program(graph, PlanSpec("predict", session.eval_rows, session.dtype))


def predict(session: Session, graph: Graph, arrays: border.Arrays) -> border.Array:
    """Raw outputs (n, ...) in the session's float type; n may be 0."""
    rows = border.row_count(arrays)
    out: border.Array = np.empty((rows, *border.row_shape(graph.types[graph.output])), session.real)
    if any(map(lazy.is_lazy, arrays.values())):
        for first, part in lazy.parts(arrays, session.eval_rows):
            out[first : first + border.row_count(part)] = predict(session, graph, part)
    elif rows:
        exe = _predictor(session, graph)
        whole = rows if exe.device is None else rows - rows % session.eval_rows
        if whole:
            _run_predictor(session, exe, {name: a[:whole] for name, a in arrays.items()}, out[:whole])
        if whole < rows:
            # Kernels of a device are chosen by the number of rows: a row's bits must not be.
            tail = {name: _padded(a[whole:], session.eval_rows) for name, a in arrays.items()}
            full: border.Array = np.empty((session.eval_rows, *out.shape[1:]), out.dtype)
            _run_predictor(session, exe, tail, full)
            out[whole:] = full[: rows - whole]
    return out


def _padded(array: border.Array, rows: int) -> border.Array:
    padded: border.Array = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _run_predictor(session: Session, exe: Executable, arrays: border.Arrays, out: border.Array) -> None:
    params = session.params_table(exe.plan, exe.graph)
    outputs = [(exe.plan.outputs[0][1], out)]
    session.run_epoch(exe, exe.source(arrays), batch_size=session.eval_rows, params=params, outputs=outputs)


@dataclass(frozen=True)
class NativeEngine:
    """Loss, statistics and update are steps of the plan."""

    session: Session
    graph: Graph
    loss: LossSpec
    metrics: tuple[str, ...]
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    ema: float | None = None
    grouping: Grouping = PLAIN

    def on(self, session: Session) -> NativeEngine:
        return replace(self, session=session)

    def train_spec(self, data: Data, max_rows: int, epoch: int = 1) -> PlanSpec:
        """What the training program of such data is compiled for, as things stand, in an epoch (1-based)."""
        return PlanSpec(
            "train", max_rows, self.session.dtype, self.loss, data.kind, data.weighted,
            self.session.optimizer.spec(), self.clip_norm, self.clip_value, metrics_.kinds(self.metrics),
            accumulate=self.accumulate > 1, ema=self.ema,
            trainable=self.session.trainable(self.grouping, epoch),
        )  # fmt: skip

    def eval_spec(self, data: Data) -> PlanSpec:
        """What the evaluation program of such data is compiled for."""
        return PlanSpec(
            "eval", self.session.eval_rows, self.session.dtype, self.loss, data.kind, data.weighted,
            metrics=metrics_.kinds(self.metrics),
        )  # fmt: skip

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> TrainPass:
        return NativeTrainPass(self, data, batch_size, shuffle=shuffle, run=run)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        exe = self.session.program(self.graph, self.eval_spec(data))
        params = self.session.params_table(exe.plan, self.graph)
        _, status = self.session.run_epoch(
            exe, data.source(exe), batch_size=self.session.eval_rows, params=params, stop=stop
        )
        return PassResult(status, metrics_.finalize(exe.plan.metrics, exe.program.metrics, self.metrics))


class NativeTrainPass:
    """One program for each phase, bound when the phase is entered: the first one as well, because a run that
    is resumed may stand elsewhere than where it was prepared."""

    executable: Executable

    def __init__(self, engine: NativeEngine, data: Data, batch_size: int, *, shuffle: bool, run: int) -> None:
        self._engine, self._data, self._batch_size = engine, data, batch_size
        self._shuffle, self._run = shuffle, run
        self._phase: Phase | None = None  # none entered yet
        self._bind(1)

    def _bind(self, epoch: int) -> None:
        """The program of an epoch (1-based), for an epoch and totals that go on."""
        engine, session = self._engine, self._engine.session
        exe = session.program(engine.graph, engine.train_spec(self._data, self._batch_size, epoch))
        if exe is getattr(self, "executable", None):
            return
        totals = self.totals() if hasattr(self, "executable") else 0.0
        self._connect(exe)
        self.executable, self._block = exe, exe.program.metrics  # (n,), the live totals
        self._block[...] = totals

    def _connect(self, exe: Executable) -> None:
        """Bind a program to the data."""
        session = self._engine.session
        self._bound = exe.bind(
            self._data.source(exe), batch_size=self._batch_size, shuffle=self._shuffle, seed=session.seed,
            run=self._run, accumulate=self._engine.accumulate,
        )  # fmt: skip

    def run(
        self, epoch: int, params: Doubles, stop: Any, deadline_s: float | None,
        first_batch: int = 0, batches: int = -1,
    ) -> tuple[int, Status]:  # fmt: skip
        memory, phase = self._engine.session.memory, self._engine.grouping.phase(epoch + 1)
        if phase is not self._phase:
            self._bind(epoch + 1)
            self._phase = phase
        memory.take_frozen(phase.frozen)  # a callback may have looked at another plan
        steps, status = self._batches(epoch, params, stop, deadline_s, first_batch, batches)
        memory.count_batches(steps)
        return steps, cast(Status, status)

    def _batches(
        self, epoch: int, params: Doubles, stop: Any, deadline_s: float | None, first_batch: int, batches: int
    ) -> tuple[int, str]:
        steps, status = self._bound.run(epoch, params, stop, deadline_s, first_batch, batches)
        return steps, status

    def metrics(self) -> dict[str, float]:
        return metrics_.finalize(self.executable.plan.metrics, self._block, self._engine.metrics)

    def totals(self) -> Doubles:
        return np.array(self._block)

    def load_totals(self, totals: Doubles) -> None:
        check_totals(totals, len(self._block))
        self._block[...] = totals


def check_totals(totals: Doubles, size: int) -> None:
    """Raises `ValueError` unless ``totals`` are so many float64 numbers."""
    if totals.shape != (size,) or totals.dtype != np.float64:
        raise ValueError(f"[totals] got {totals.dtype} {totals.shape}; expected float64 ({size},)")
