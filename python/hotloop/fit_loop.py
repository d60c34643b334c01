# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs: native passes, and between them whatever needs Python.

Rollback is the rule: one snapshot holds the best epoch (with validation data) or the last whole one
(without), and whatever ends the run, an exception included, ends on it.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Any, Literal

import numpy as np

from hotloop import _core
from hotloop.callbacks import Callback, FitState
from hotloop.early_stopping import BestEpoch, EarlyStopping, Patience, direction
from hotloop.engine import Data, Engine, EpochSpec, PassResult, TrainPass
from hotloop.errors import DivergenceError, HotloopWarning
from hotloop.graph import Graph
from hotloop.history import History, StopReason
from hotloop.progress import Silent
from hotloop.schedules import Factors, ReduceOnPlateau, Schedule
from hotloop.session import Session


@dataclass(frozen=True)
class FitJob:
    """One run, checked and compiled: nothing here can be refused any more. ``history`` is filled in."""

    session: Session
    graph: Graph
    engine: Engine
    train_pass: TrainPass
    train: Data
    validation: Mapping[str, Data]
    epochs: int
    batch_size: int
    shuffle: bool
    run: int
    max_time: float | None
    schedule: Schedule
    factors: Factors | None  # of the learning rate, one per step; None: all 1
    monitor: str
    restore_best: bool
    early_stopping: EarlyStopping | None
    callbacks: Sequence[Callback]
    on_divergence: Literal["stop", "raise"]
    progress: Silent
    history: History

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.train.rows // self.batch_size)


@contextmanager
def interruptible() -> Iterator[Any]:
    """A stop flag that the first Ctrl-C sets; the second raises KeyboardInterrupt.

    Only in the main thread, which is the one that gets signals, and only in place of Python's own handler:
    a handler that somebody installed knows better than we do.
    """
    stop = _core.StopFlag()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_fit(job: FitJob) -> None:
    """Run the job to its end and fill in its history.

    Raises what callbacks raise, after the rollback, and `DivergenceError` if the job says so.
    """
    loop = _FitLoop(job)
    begin = time.perf_counter()
    with interruptible() as stop:
        try:
            reason = loop.run(stop, begin)
        except BaseException:
            loop.roll_back(failed=True)
            job.progress.stop("stopped by an error")
            raise
    loop.roll_back(failed=reason == "divergence")
    loop.finish(reason, time.perf_counter() - begin)


class _FitLoop:
    def __init__(self, job: FitJob) -> None:
        self.job = job
        self.history = job.history
        self.state = FitState(model=job.session.module, epochs=job.epochs)
        self.kept = job.session.memory.snapshot()
        self.kept_epoch = 0
        self.last = PassResult(0, "done", {})
        mode = job.early_stopping.mode if job.early_stopping else "auto"
        self.best = BestEpoch(job.monitor, mode)
        self.patience = Patience(job.early_stopping, job.monitor) if job.early_stopping else None
        self.plateau, self.plateau_factor = None, 1.0
        if isinstance(job.schedule, ReduceOnPlateau):
            maximize = direction(job.monitor, mode) == "max"
            self.plateau = job.schedule.tracker(job.session.optimizer.lr, maximize=maximize)

    def run(self, stop: Any, begin: float) -> StopReason:
        job = self.job
        job.progress.start(job.epochs, job.train.rows)
        for callback in job.callbacks:
            callback.on_fit_start(self.state)
        if self.state.stop_requested:
            return "callback"
        deadline = None if job.max_time is None else begin + job.max_time
        for epoch in range(1, job.epochs + 1):
            ended = self._epoch(epoch, stop, deadline)
            if ended is not None:
                return ended
        return "epochs"

    def _epoch(self, epoch: int, stop: Any, deadline: float | None) -> StopReason | None:
        """One epoch and what follows it; why the run ends here, or None."""
        begin = time.perf_counter()
        spec = self._epoch_spec(epoch)
        left = None if deadline is None else max(deadline - begin, 0.0)
        self.last = self.job.train_pass.run(spec, stop, left)
        if self.last.status == "diverged" or not self.job.session.memory.is_finite():
            return "divergence"
        if self.last.status == "stopped":
            return "interrupt"
        if self.last.status == "time":
            return "time"
        metrics = dict(self.last.metrics)
        for name, data in self.job.validation.items():
            result = self.job.engine.evaluate(data, stop)
            if result.status == "stopped":
                return "interrupt"
            metrics.update({f"{name}_{key}": value for key, value in result.metrics.items()})
        metrics["lr"] = float(spec.params[-1, 0])
        self.history.append(metrics)
        self._keep(epoch, metrics[self.job.monitor])
        self.job.progress.epoch(epoch, metrics, time.perf_counter() - begin)
        return self._after_epoch(epoch, metrics, stop, deadline)

    def _epoch_spec(self, epoch: int) -> EpochSpec:
        job = self.job
        first = (epoch - 1) * job.steps_per_epoch
        factors = np.full(job.steps_per_epoch, self.plateau_factor)
        if job.factors is not None:
            factors *= job.factors[first : first + job.steps_per_epoch]
        params = job.session.params_table(job.train_pass.executable.plan, job.graph, factors)
        return EpochSpec(job.run, epoch - 1, first, job.shuffle, params)

    def _keep(self, epoch: int, value: float) -> None:
        """Snapshot the epoch if the run should end on it as things stand."""
        better = self.best.update(epoch, value)
        if self.job.restore_best and (better or not self.job.validation):
            self.job.session.memory.snapshot(self.kept)
            self.kept_epoch = epoch

    def _after_epoch(
        self, epoch: int, metrics: dict[str, float], stop: Any, deadline: float | None
    ) -> StopReason | None:
        self.state.epoch, self.state.lr = epoch, metrics["lr"]
        self.state.metrics = MappingProxyType(metrics)
        answers = [bool(callback.on_epoch_end(self.state)) for callback in self.job.callbacks]
        monitored = metrics[self.job.monitor]
        if self.plateau is not None:
            self.plateau_factor = self.plateau.update(monitored)
        out_of_patience = self.patience is not None and self.patience.should_stop(epoch, monitored)
        if any(answers) or self.state.stop_requested:
            return "callback"
        if out_of_patience:
            return "early_stopping"
        if epoch == self.job.epochs:
            return "epochs"
        if stop.is_set():
            return "interrupt"
        if deadline is not None and time.perf_counter() >= deadline:
            return "time"
        return None

    def roll_back(self, *, failed: bool) -> None:
        """Back to the snapshot: the best epoch, or, if the run failed, the last state known to be good.

        Without either (an interrupted first epoch) the parameters stay as they are.
        """
        if not self.job.restore_best:
            return
        if failed or (self.job.validation and self.kept_epoch):
            self.job.session.memory.restore(self.kept)

    def finish(self, reason: StopReason, seconds: float) -> None:
        history = self.history
        history.stop_reason, history.seconds, history.best_epoch = reason, seconds, self.best.epoch
        self.job.progress.stop(repr(history))
        for callback in self.job.callbacks:
            callback.on_fit_end(self.state)
        if reason != "divergence":
            return
        message = self._divergence_message()
        if self.job.on_divergence == "raise":
            raise DivergenceError(message)
        warnings.warn(message, HotloopWarning, stacklevel=4)  # run_fit, Trainer.fit, the caller

    def _divergence_message(self) -> str:
        loss = self.last.metrics.get("loss", float("nan"))
        what = f"the loss became {loss}" if not np.isfinite(loss) else "a parameter became infinite or NaN"
        where = f"epoch {self.history.epochs + 1}, step {self.last.steps} of {self.job.steps_per_epoch}"
        if self.job.restore_best:
            state = (
                f"restored epoch {self.kept_epoch}" if self.kept_epoch else "restored the start of the run"
            )
        else:
            state = "nothing was restored, as restore_best=False asks"
        return f"[fit] {what} in {where}; {state}; try a smaller learning rate or clip_norm=1.0"
