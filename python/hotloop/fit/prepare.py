# SPDX-License-Identifier: Apache-2.0
"""From a trainer and the arguments of `fit` to a job: checked, compiled, and nothing changed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop import metrics as metrics_
from hotloop.callbacks.base import as_callbacks, asks_for_batches
from hotloop.engine.scored import for_run
from hotloop.fit.about import about_run
from hotloop.fit.buffers import RunBuffers
from hotloop.fit.hyper_schedules import factors_of, lr_schedule
from hotloop.fit.job import FitJob
from hotloop.fit.place import place_run
from hotloop.fit.provenance import provenance_of
from hotloop.fit.setup import (
    Validation,
    check_batches,
    make_engine,
    resolve_monitor,
)
from hotloop.history import History
from hotloop.inputs import frames, handed
from hotloop.progress import make_progress

if TYPE_CHECKING:
    from hotloop.trainer import Trainer


def make_job(
    trainer: Trainer, X: Any, y: Any, *, validation: Validation, weight: Any, epochs: int, batch_size: int,
    shuffle: bool, max_time: float | None, run: int,
) -> FitJob:  # fmt: skip
    """The job of one run. Raises what `Trainer.fit` says for data and settings that do not fit."""
    session, stopping = trainer._session, trainer.early_stopping
    names_of_columns: frames.Names = {}
    given, graph, loss, own = handed.for_fit(trainer, X, y, weight, names_of_columns, epochs)
    train, sets = handed.validation_sets(trainer, validation, given, graph, loss, names_of_columns, epochs)
    callbacks = as_callbacks(trainer.callbacks)
    for callback in callbacks:
        asks_for_batches(callback)  # may refuse
    names = metrics_.resolve(trainer.metrics, loss, given.arrays["target"])
    monitor = resolve_monitor(trainer.monitor, names, tuple(sets), needed=stopping is not None)
    batch_size = own or min(batch_size, train.rows)
    grouping = session.grouping(trainer.freeze, epochs=epochs)
    if own is None:
        check_batches(graph, train.rows, batch_size, frozen=grouping.always_frozen)
    factors = factors_of(
        trainer.schedule, session.optimizer, graph, epochs, train.steps(batch_size), trainer.accumulate
    )
    engine = make_engine(
        session, graph, loss, names, trainer.clip_norm, trainer.clip_value, trainer.accumulate, trainer.ema,
        grouping,
    )  # fmt: skip
    engine = for_run(engine, sets)
    device = place_run(trainer.device, engine, train, batch_size=batch_size, epochs=epochs)
    train_pass = engine.prepare(train, batch_size, shuffle=shuffle, run=run)
    trainer._resolved = (trainer.loss, loss)
    held_out = float(validation) if isinstance(validation, (int, float, np.number)) else None
    provenance = provenance_of(
        given,
        {} if held_out else sets,
        held_out=held_out,
        seed=trainer.seed,
        isa=train_pass.executable.program.isa,
    )
    job = FitJob(
        session=session, graph=graph, engine=engine, train_pass=train_pass, train=train, validation=sets,
        epochs=epochs, batch_size=batch_size, shuffle=shuffle, run=run, max_time=max_time,
        schedule=lr_schedule(trainer.schedule), factors=factors, grouping=grouping, monitor=monitor,
        restore_best=trainer.restore_best, early_stopping=stopping, callbacks=callbacks,
        on_divergence=trainer.on_divergence,
        progress=make_progress(trainer.progress), history=History(monitor=monitor),
        provenance=provenance, feature_names=names_of_columns, device=device,
        buffers=RunBuffers(session.memory, accumulate=trainer.accumulate, ema=trainer.ema is not None),
    )  # fmt: skip
    job.history.about = about_run(trainer, job)
    return job
