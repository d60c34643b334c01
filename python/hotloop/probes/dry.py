# SPDX-License-Identifier: Apache-2.0
"""The dry run: two batches of training and evaluation on a replica of a run that is ready to start.

Whatever could fail in the run's first seconds has been done when it returns: checks, compilation, steps, the
evaluation of every validation set, a file in the checkpoints' folder. Callbacks are not called: what they do
(logging, files of their own) could not be undone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from hotloop.data import border
from hotloop.engine.callable import CallableEngine
from hotloop.engine.native import Data, NativeEngine
from hotloop.engine.scored import without_scores
from hotloop.fit.job import FitJob, StepParams
from hotloop.graph import Graph
from hotloop.history import History
from hotloop.probes.dry_result import DryRun
from hotloop.probes.replica import Replica, batch_losses

_BATCHES = 2


def run_dry(job: FitJob, *, keep_moments: bool) -> History:
    """Try the job on a copy of its model. A History without epochs, whose ``dry_run`` is the report."""
    replica = Replica(job.engine, keep_moments=keep_moments)
    losses, step_s = _train(job, replica)
    validation, evaluate_s = _evaluate(job, replica)
    engine = without_scores(job.engine)
    if isinstance(engine, NativeEngine):
        from hotloop.fit.cost import cost_plan

        cost = cost_plan(engine, job.train, job.batch_size, keeps_epochs=job.restore_best)
        epoch_s = cost.seconds_per_epoch
        step_s = epoch_s / job.steps_per_epoch
    else:
        epoch_s = step_s * job.steps_per_epoch
    epoch_s += evaluate_s
    done = 0 if job.resumed is None else job.resumed.record.epoch
    report = DryRun(
        rows=job.train.rows, batch_size=job.batch_size, epochs=job.epochs, steps_per_epoch=job.steps_per_epoch,
        inputs=_shapes(job.train, job.batch_size), output=_output(job.graph, job.batch_size),
        parameters=sum(entry.size for entry in replica.memory.layout.entries), losses=losses,
        validation=validation, seconds_per_step=step_s, seconds_per_epoch=epoch_s,
        seconds=epoch_s * (job.epochs - done), peak_bytes=_peak_bytes(job, replica),
        threads=job.train_pass.executable.threads,
        warnings=tuple(_warnings(job, replica, losses, validation, epoch_s * (job.epochs - done))),
    )  # fmt: skip
    job.history.stop_reason, job.history.dry_run = "dry_run", report
    return job.history


def _train(job: FitJob, replica: Replica) -> tuple[tuple[float, ...], float]:
    """The losses of the next two batches of the epoch in hand, and the seconds of the last one."""
    epoch = batch = 0
    train = replica.prepare(job.train, job.batch_size, shuffle=job.shuffle, run=job.run)
    buffers = job.buffers.on(replica.memory)
    buffers.begin()
    if job.resumed is not None:
        replica.memory.restore(job.resumed.live)
        buffers.load(job.resumed.record.buffers, job.resumed.record.batch)
        epoch, batch = job.resumed.record.epoch, job.resumed.record.batch
        if job.resumed.record.ended is not None:
            return (), 0.0
    table, _ = StepParams(job).of(epoch + 1, 1.0)
    last = min(batch + _BATCHES, job.steps_per_epoch)
    params = table[np.minimum(np.arange(batch, last), len(table) - 1)]
    first = epoch * job.steps_per_epoch + batch
    losses, seconds, begin = [], 0.0, time.perf_counter()
    with buffers:
        for loss in batch_losses(train, params, job.steps_per_epoch, first=first):
            losses.append(loss)
            seconds, begin = time.perf_counter() - begin, time.perf_counter()
    return tuple(losses), seconds


def _evaluate(job: FitJob, replica: Replica) -> tuple[dict[str, dict[str, float]], float]:
    """The metrics of the first rows of each validation set, and the seconds that all of them will take."""
    metrics, seconds = {}, 0.0
    for name, data in job.validation.items():
        some = data.sample
        part = Data(
            border.take(some.arrays, np.arange(min(some.rows, _BATCHES * replica.engine.session.eval_rows))),
            data.kind,
        )
        metrics[name] = replica.engine.evaluate(part).metrics
        begin = time.perf_counter()  # once more: the first pass compiled
        replica.engine.evaluate(part)
        seconds += (time.perf_counter() - begin) * data.rows / part.rows
    return metrics, seconds


def _shapes(data: Data, batch_size: int) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: ((batch_size, *array.shape[1:]), str(array.dtype)) for name, array in data.arrays.items()}


def _output(graph: Graph, batch_size: int) -> tuple[int, ...]:
    return (batch_size, *border.row_shape(graph.types[graph.output]))


def _peak_bytes(job: FitJob, replica: Replica) -> int:
    """The model, the programs that the replica needed, and a snapshot."""
    native = replica.memory.native
    snapshot = native.snapshot_nbytes if job.restore_best else 0
    return int(native.nbytes) + replica.session.program_bytes + snapshot


def _warnings(
    job: FitJob, replica: Replica, losses: tuple[float, ...], validation: Mapping[str, Mapping[str, float]],
    seconds: float,
) -> list[str]:  # fmt: skip
    found = []
    bad = [i for i, loss in enumerate(losses) if not np.isfinite(loss)]
    if bad:
        found.append(f"the loss of batch {bad[0] + 1} is {losses[bad[0]]}; try a smaller lr (see lr_find)")
    elif not replica.memory.is_finite():
        found.append("a parameter became infinite or NaN; try a smaller lr (see lr_find), or clip_norm=1.0")
    for name, metrics in validation.items():
        for key, value in metrics.items():
            if not bad and not np.isfinite(value):
                found.append(
                    f"{name}_{key} is {value} on the first rows of {name!r}; such an epoch is never the best"
                )
    stopping = job.early_stopping
    if stopping is not None and stopping.patience + stopping.start_from_epoch + 1 > job.epochs:
        found.append(
            f"early stopping with patience={stopping.patience} cannot act within {job.epochs} epochs"
        )
    if job.max_time is not None and seconds > job.max_time:
        found.append(
            f"the run would take about {seconds:.3g} s, and max_time={job.max_time:g} ends it earlier"
        )
    if isinstance(without_scores(job.engine), CallableEngine):
        found.append("a loss in Python is slow; one of hl.losses runs natively")
    return found
