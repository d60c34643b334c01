# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs: native passes, and between them whatever needs Python.

Rollback is the rule: one snapshot holds the best epoch (with validation data) or the last whole one
(without), and whatever ends the run, an exception included, ends on it. A run can be recorded after any
batch and go on from the record with the same bits.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, MappingProxyType
from typing import Any

import numpy as np

from hotloop import _core
from hotloop.callbacks import FitState
from hotloop.early_stopping import BestEpoch, Patience, direction
from hotloop.errors import DivergenceError, HotloopWarning
from hotloop.fit_job import FitJob, Resumed, StepParams
from hotloop.history import StopReason
from hotloop.model_memory import Snapshot
from hotloop.run_record import Ended, RunRecord
from hotloop.schedules import ReduceOnPlateau
from hotloop.session import Doubles


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

    Raises what callbacks raise and `OSError` from checkpoints, after the rollback, and `DivergenceError` if
    the job says so.
    """
    with interruptible() as stop:
        loop = _FitLoop(job)
        try:
            reason = loop.run(stop)
            if reason != "divergence":
                loop.record()
        except BaseException:
            loop.roll_back(failed=True)
            job.progress.stop("stopped by an error")
            raise
    loop.roll_back(failed=reason == "divergence")
    loop.finish(reason)


class _FitLoop:
    def __init__(self, job: FitJob) -> None:
        self.job = job
        self.history = job.history
        self.memory = job.session.memory
        self.begin = time.perf_counter()
        self.seconds = 0.0  # of the run before this call
        self.epoch = self.batch = 0  # whole epochs done, and batches of the next one
        self.ended: Ended | None = None
        self.recorded = (-1, -1)  # the position in the newest checkpoint
        self.state = FitState(model=job.session.module, epochs=job.epochs)
        self.kept: Snapshot | None = None
        self.kept_epoch = 0
        mode = job.early_stopping.mode if job.early_stopping else "auto"
        self.best = BestEpoch(job.monitor, mode)
        self.patience = Patience(job.early_stopping, job.monitor) if job.early_stopping else None
        self.plateau = None
        if isinstance(job.schedule, ReduceOnPlateau):
            maximize = direction(job.monitor, mode) == "max"
            self.plateau = job.schedule.tracker(job.session.optimizer.lr, maximize=maximize)
        self.params = StepParams(job)
        if job.resumed is not None:
            self._resume(job.resumed)
        elif job.restore_best:
            self.kept = self.memory.snapshot()

    def _resume(self, resumed: Resumed) -> None:
        """Stand where the checkpoint's run stood; the model last, which nothing may go wrong after."""
        record = resumed.record
        self.best.load(record.best)
        if self.patience is not None and record.patience is not None:
            self.patience.load(record.patience)
        if self.plateau is not None and record.plateau is not None:
            self.plateau.load(record.plateau)
        self.epoch, self.batch, self.ended = record.epoch, record.batch, record.ended
        self.recorded, self.seconds = (record.epoch, record.batch), record.seconds
        self.kept, self.kept_epoch = resumed.kept, record.kept_epoch
        self.job.train_pass.load_totals(record.totals)
        self.memory.restore(resumed.live)
        if record.epoch:
            metrics = {name: values[-1] for name, values in self.history.history.items()}
            self._show(metrics)

    # --- the run ---

    def run(self, stop: Any) -> StopReason:
        job = self.job
        job.progress.start(job.epochs, job.train.rows, self.epoch)
        for callback in job.callbacks:
            callback.on_fit_start(self.state)
        if self.state.stop_requested:
            return "callback"
        deadline = None if job.max_time is None else self.begin + job.max_time
        while self.ended is None:
            reason = self._epoch(stop, deadline)
            if reason is not None:
                return reason
        return self.ended

    def _epoch(self, stop: Any, deadline: float | None) -> StopReason | None:
        """What is left of the epoch in hand, and what follows it; why the run ends here, or None."""
        begin = time.perf_counter()
        params, lr = self.params.of(self.epoch + 1, 1.0 if self.plateau is None else self.plateau.factor)
        reason = self._batches(params, stop, deadline)
        if reason is not None:
            return reason
        if not self.memory.is_finite():
            return "divergence"
        metrics = self.job.train_pass.metrics()
        for name, data in self.job.validation.items():
            status, values = self.job.engine.evaluate(data, stop)
            if status == "stopped":
                return "interrupt"
            metrics.update({f"{name}_{key}": value for key, value in values.items()})
        metrics["lr"] = lr
        self.history.append(metrics)
        self.epoch, self.batch = self.epoch + 1, 0
        self._keep(metrics[self.job.monitor])
        self.job.progress.epoch(self.epoch, metrics, time.perf_counter() - begin)
        return self._after_epoch(metrics, stop, deadline)

    def _batches(self, params: Doubles, stop: Any, deadline: float | None) -> StopReason | None:
        """Train to the end of the epoch, with a checkpoint wherever one is due on the way."""
        while True:
            left = None if deadline is None else max(deadline - time.perf_counter(), 0.0)
            steps, status = self.job.train_pass.run(
                self.epoch, params, stop, left, self.batch, self._batches_to_checkpoint()
            )
            self.batch += steps
            if status == "done":
                return None
            if status == "paused":
                self.record()
                if stop.is_set():
                    return "interrupt"
                if deadline is not None and time.perf_counter() >= deadline:
                    return "time"
            else:
                return _REASONS[status]

    def _batches_to_checkpoint(self) -> int:
        """Batches until the next checkpoint is due, in this epoch or a later one; -1 if none is."""
        recorder = self.job.recorder
        if recorder is None or recorder.every == "epoch":
            return -1
        return recorder.every - self._step % recorder.every

    @property
    def _step(self) -> int:
        return self.epoch * self.job.steps_per_epoch + self.batch

    def _keep(self, value: float) -> None:
        """Snapshot the epoch if the run should end on it as things stand."""
        better = self.best.update(self.epoch, value)
        if self.job.restore_best and (better or not self.job.validation):
            self.kept = self.memory.snapshot(self.kept)
            self.kept_epoch = self.epoch

    def _after_epoch(self, metrics: dict[str, float], stop: Any, deadline: float | None) -> StopReason | None:
        job = self.job
        stopped = False
        if job.callbacks:
            self._show(metrics)
            answers = [callback.on_epoch_end(self.state) for callback in job.callbacks]
            stopped = self.state.stop_requested or any(answers)
        monitored = metrics[job.monitor]
        if self.plateau is not None:
            self.plateau.update(monitored)
        if self.patience is not None and self.patience.should_stop(self.epoch, monitored):
            self.ended = "early_stopping"
        elif self.epoch == job.epochs:
            self.ended = "epochs"
        if job.recorder is not None and (
            job.recorder.every == "epoch" or self._step % job.recorder.every == 0
        ):
            self.record()
        if stopped:
            return "callback"
        if self.ended is not None:
            return self.ended
        if stop.is_set():
            return "interrupt"
        if deadline is not None and time.perf_counter() >= deadline:
            return "time"
        return None

    def _show(self, metrics: dict[str, float]) -> None:
        """Let callbacks see an epoch."""
        self.state.epoch, self.state.lr = self.epoch, metrics["lr"]
        self.state.metrics = MappingProxyType(metrics)

    # --- how it ends ---

    def record(self) -> None:
        """Write a checkpoint of this position, unless the newest one is of it, or none are wanted."""
        job = self.job
        if job.recorder is None or self.recorded == (self.epoch, self.batch):
            return
        seconds = self._seconds()
        history = replace(
            self.history, best_epoch=self.best.epoch, stop_reason=self.ended or "interrupt", seconds=seconds
        )
        record = RunRecord(
            run=job.run, epoch=self.epoch, batch=self.batch, step=self._step,
            totals=job.train_pass.totals(), ended=self.ended, seconds=seconds, history=history,
            best=self.best.state(), patience=None if self.patience is None else self.patience.state(),
            plateau=None if self.plateau is None else self.plateau.state(), kept_epoch=self.kept_epoch,
        )  # fmt: skip
        job.recorder.write(record, self.kept, ends_on_kept=self._ends_on_kept)
        self.recorded = (self.epoch, self.batch)

    @property
    def _ends_on_kept(self) -> bool:
        """Whether a run that ends here ends on the snapshot: on its best epoch, if validation found one."""
        return bool(self.job.restore_best and self.job.validation and self.kept_epoch)

    def roll_back(self, *, failed: bool) -> None:
        """Back to the snapshot: the best epoch, or, if the run failed, the last state known to be good.

        Without either (an interrupted first epoch) the parameters stay as they are.
        """
        if self.kept is not None and (failed or self._ends_on_kept):
            self.memory.restore(self.kept)

    def _seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.begin

    def finish(self, reason: StopReason) -> None:
        history = self.history
        history.stop_reason, history.seconds, history.best_epoch = reason, self._seconds(), self.best.epoch
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
        loss = self.job.train_pass.metrics().get("loss", float("nan"))
        what = f"the loss became {loss}" if not np.isfinite(loss) else "a parameter became infinite or NaN"
        where = f"epoch {self.epoch + 1}, step {self.batch} of {self.job.steps_per_epoch}"
        if self.job.restore_best:
            state = (
                f"restored epoch {self.kept_epoch}" if self.kept_epoch else "restored the start of the run"
            )
        else:
            state = "nothing was restored, as restore_best=False asks"
        return f"[fit] {what} in {where}; {state}; try a smaller learning rate or clip_norm=1.0"


_REASONS: dict[str, StopReason] = {"diverged": "divergence", "stopped": "interrupt", "time": "time"}
