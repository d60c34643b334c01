# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs: native passes, and between them whatever needs Python.

Rollback is the rule: one snapshot holds the best epoch (with validation data) or the last whole one
(without), and whatever ends the run, an exception included, ends on it. A run can be recorded after any
batch and go on from the record with the same bits.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop.callbacks.hooks import Hooks
from hotloop.callbacks.state import FitState
from hotloop.early_stopping import BestEpoch, Patience, direction
from hotloop.errors import DivergenceError, HotloopWarning
from hotloop.fit.cost import process_peak_bytes
from hotloop.fit.job import FitJob, Resumed, StepParams
from hotloop.fit.record import Ended, RunRecord
from hotloop.history import StopReason
from hotloop.progress import Silent
from hotloop.runtime.interrupt import interruptible
from hotloop.runtime.memory import Snapshot
from hotloop.runtime.session import Doubles
from hotloop.schedules import ReduceOnPlateau

if TYPE_CHECKING:
    from hotloop.evidence import Divergence


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
        shown = MappingProxyType(self.history.history)
        state = FitState(
            job.session.module, job.epochs, run=job.run, history=shown, tensors=self.memory.read_only
        )
        self.hooks = Hooks(job.callbacks, state)
        self.kept: Snapshot | None = None
        self.kept_epoch = 0
        self.is_kept = True  # or the memory still is what `kept` has to become; see _settle
        mode = job.early_stopping.mode if job.early_stopping else "auto"
        self.best = BestEpoch(job.monitor, mode)
        self.patience = Patience(job.early_stopping, job.monitor) if job.early_stopping else None
        self.plateau = None
        if isinstance(job.schedule, ReduceOnPlateau):
            maximize = direction(job.monitor, mode) == "max"
            self.plateau = job.schedule.tracker(job.session.optimizer.lr, maximize=maximize)
        self.params = StepParams(job)
        from hotloop.fit.evidence import EvidenceLog  # many classes, which importing a trainer does not need

        self.evidence = EvidenceLog(job)
        if job.resumed is not None:
            self._resume(job.resumed)
            return
        job.buffers.begin()
        self.is_kept = not job.restore_best

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
        self._show()
        self.hooks.load(record.callbacks)
        self.memory.restore(resumed.live)
        self.job.buffers.load(record.buffers, record.batch)

    # --- the run ---

    def run(self, stop: Any) -> StopReason:
        job = self.job
        job.progress.start(job.epochs, job.train.rows, self.epoch)
        self._settle(self.hooks)
        if self.hooks.fit_start():
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
        trained = time.perf_counter() - begin
        metrics = self.job.train_pass.metrics()
        for name, data in self.job.validation.items():
            status, values = self.job.engine.evaluate(data, stop)
            if status == "stopped":
                return "interrupt"
            metrics.update({f"{name}_{key}": value for key, value in values.items()})
        metrics["lr"] = lr
        self.history.append(metrics, trained)
        self.epoch, self.batch = self.epoch + 1, 0
        self.evidence.epoch_end(self.epoch)
        self._keep(metrics[self.job.monitor])
        self.job.progress.epoch(self.epoch, metrics, time.perf_counter() - begin, self.best.epoch)
        reason = self._after_epoch(metrics, stop, deadline)
        if reason is not None:
            self.evidence.sample(self.epoch)
        return reason

    def _batches(self, params: Doubles, stop: Any, deadline: float | None) -> StopReason | None:
        """Train to the end of the epoch, pausing where callbacks want to look or a checkpoint is due."""
        timetable = None if self.job.recorder is None else self.job.recorder.timetable
        self._settle()
        while True:
            times = [] if deadline is None else [max(deadline - time.perf_counter(), 0.0)]
            pauses = [self.hooks.batches_left(self._step)]
            shown = self.job.progress.pause_s()
            if shown is not None:
                times.append(shown)
            if timetable is not None:
                times += timetable.seconds_left()
                pauses.append(timetable.batches_left(self._step))
            with self.job.buffers:
                steps, status = self.job.train_pass.run(
                    self.epoch, params, stop, min(times, default=None), self.batch,
                    min((n for n in pauses if n > 0), default=-1),
                )  # fmt: skip
            self.batch += steps
            if status == "diverged":
                return "divergence"
            if steps and self.hooks.is_due(self._step) and self._batch_end(params):
                return "callback"
            if status == "done":
                return None
            self.job.progress.batch(self.batch, self.job.steps_per_epoch, self.job.train_pass.metrics)
            if timetable is not None and timetable.is_due(self._step):
                self.record()
            if status == "stopped" or stop.is_set():
                return "interrupt"
            if deadline is not None and time.perf_counter() >= deadline:
                return "time"

    def _batch_end(self, params: Doubles) -> bool:
        """Let callbacks see a batch; whether one of them ends the run."""
        lr = float(params[min(self.batch, len(params)) - 1, 0])
        self.hooks.show((self.epoch + 1, self.batch, self._step), self.job.train_pass.metrics(), lr)
        return self.hooks.batch_end()

    @property
    def _step(self) -> int:
        return self.epoch * self.job.steps_per_epoch + self.batch

    def _keep(self, value: float) -> None:
        """Mark the epoch for a snapshot if the run should end on it as things stand."""
        better = self.best.update(self.epoch, value)
        if self.job.restore_best and (better or not self.job.validation):
            self.is_kept, self.kept_epoch = False, self.epoch

    def _settle(self, needed: object = True) -> None:
        """Make the snapshot that is due, before something may change the memory: a run that ends where it
        should end needs none."""
        if needed and not self.is_kept:
            self.kept, self.is_kept = self.memory.snapshot(self.kept), True

    def _after_epoch(self, metrics: dict[str, float], stop: Any, deadline: float | None) -> StopReason | None:
        job = self.job
        stopped = False
        if self.hooks:
            self._settle()
            self._show()
            stopped = self.hooks.epoch_end()
        monitored = metrics[job.monitor]
        if self.plateau is not None:
            self.plateau.update(monitored)
        if self.patience is not None and self.patience.should_stop(self.epoch, monitored):
            self.ended = "early_stopping"
        elif self.epoch == job.epochs:
            self.ended = "epochs"
        if self.ended is not None:
            self.evidence.sample(self.epoch)  # before it is recorded
        if job.recorder is not None and job.recorder.timetable.is_due(self._step, epoch_end=True):
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

    def _show(self) -> None:
        """Let callbacks see where the run stands, with the metrics of its last whole epoch."""
        metrics = {name: values[-1] for name, values in self.history.history.items()}
        self.hooks.show((self.epoch, self.batch, self._step), metrics, metrics.get("lr", 0.0))

    # --- how it ends ---

    def record(self) -> None:
        """Write a checkpoint of this position, unless the newest one is of it, or none are wanted."""
        job = self.job
        if job.recorder is None or self.recorded == (self.epoch, self.batch):
            return
        self._settle()
        seconds = self._seconds()
        history = replace(
            self.history, best_epoch=self.best.epoch, stop_reason=self.ended or "interrupt", seconds=seconds
        )
        record = RunRecord(
            run=job.run, epoch=self.epoch, batch=self.batch, step=self._step,
            totals=job.train_pass.totals(), ended=self.ended, seconds=seconds, history=history,
            best=self.best.state(), patience=None if self.patience is None else self.patience.state(),
            plateau=None if self.plateau is None else self.plateau.state(), kept_epoch=self.kept_epoch,
            callbacks=self.hooks.stored(), best_step=self.best.epoch and self.best.epoch * job.steps_per_epoch,
            buffers=job.buffers.tensors(self.batch),
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
        if self.kept is not None and self.is_kept and (failed or self._ends_on_kept):
            self.memory.restore(self.kept)

    def _seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.begin

    def finish(self, reason: StopReason) -> None:
        history = self.history
        history.stop_reason, history.seconds, history.best_epoch = reason, self._seconds(), self.best.epoch
        history.about["process_peak_bytes"] = process_peak_bytes()
        place = self._divergence() if reason == "divergence" else None
        self.evidence.run_ended(place)
        silent = type(self.job.progress) is Silent  # then nobody asks for a diagnosis yet
        self.job.progress.stop("" if silent else history.summary())
        self._show()
        self.hooks.fit_end()
        if place is None:
            return
        message = _divergence_message(place)
        if self.job.on_divergence == "raise":
            raise DivergenceError(message)
        warnings.warn(message, HotloopWarning, stacklevel=4)  # run_fit, Trainer.fit, the caller

    def _divergence(self) -> Divergence:
        loss = self.job.train_pass.metrics().get("loss", float("nan"))
        from hotloop.evidence import Divergence

        return Divergence(
            epoch=self.epoch + 1, step=self.batch, steps=self.job.steps_per_epoch,
            what="a parameter" if np.isfinite(loss) else "the loss",
            value="infinite or NaN" if np.isfinite(loss) else str(loss),
            restored=self.kept_epoch if self.job.restore_best else None,
        )  # fmt: skip


def _divergence_message(place: Divergence) -> str:
    state = {
        None: "nothing was restored, as restore_best=False asks", 0: "restored the start of the run",
    }.get(place.restored, f"restored epoch {place.restored}")  # fmt: skip
    return (
        f"[fit] {place.what} became {place.value} in epoch {place.epoch}, step {place.step} of {place.steps}; "
        f"{state}; try a smaller learning rate or clip_norm=1.0"
    )
