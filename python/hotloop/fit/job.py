# SPDX-License-Identifier: Apache-2.0
"""What one run is made of, once everything is checked and compiled: the job of the loop in loop.py.

The loop knows of checkpoints only what stands here, so that training needs neither files nor hashing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from hotloop.callbacks import Callback
from hotloop.early_stopping import EarlyStopping
from hotloop.engine.native import Data, Engine, TrainPass
from hotloop.fit.buffers import RunBuffers
from hotloop.fit.hyper_schedules import HyperFactors
from hotloop.fit.provenance import Provenance
from hotloop.fit.record import RunRecord
from hotloop.graph import Graph
from hotloop.history import History
from hotloop.progress import Silent
from hotloop.runtime.device_choice import Choice
from hotloop.runtime.grouping import Grouping, fill_groups
from hotloop.runtime.memory import Snapshot
from hotloop.runtime.session import Doubles, Session
from hotloop.schedules import Schedule
from hotloop.storage.checkpoint import Timetable


class Recorder(Protocol):
    """Writes checkpoints; ``timetable`` says when."""

    timetable: Timetable

    def write(self, record: RunRecord, kept: Snapshot | None, *, ends_on_kept: bool) -> None:
        """Write the memory as it is, the snapshot to roll back to, and the record. ``ends_on_kept`` says
        which of the two is the model if the run ends here. Raises `OSError`."""
        ...


@dataclass(frozen=True)
class Resumed:
    """A run read from a checkpoint: its record, its memory, and the snapshot to roll back to."""

    record: RunRecord
    live: Snapshot
    kept: Snapshot | None


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
    factors: HyperFactors
    grouping: Grouping
    monitor: str
    restore_best: bool
    early_stopping: EarlyStopping | None
    callbacks: Sequence[Callback]
    on_divergence: Literal["stop", "raise"]
    progress: Silent
    history: History
    provenance: Provenance
    buffers: RunBuffers
    device: Choice
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recorder: Recorder | None = None
    resumed: Resumed | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the loop asks often."""
        return self.train.steps(self.batch_size)


class StepParams:
    """The table of step parameters of each epoch: one row where the whole epoch has the same, else one per
    step. It is allocated once."""

    def __init__(self, job: FitJob) -> None:
        self._factors, self._n = job.factors, job.steps_per_epoch
        self._optimizer, self._scales = job.session.optimizer, job.grouping.scales
        plan = job.train_pass.executable.plan  # every phase has the same columns
        self._constant = all(factors is None for factors in job.factors)
        rows = 1 if self._constant else self._n
        self._table = job.session.params_table(plan, job.graph, np.ones(rows), scales=self._scales)
        self._dropout = self._table[:, 2 * plan.n_groups :]
        self._p = self._dropout[0].copy()  # (layers,)
        self._scale = 1.0  # what the table holds, where it has one row

    def of(self, epoch: int, scale: float) -> tuple[Doubles, float]:
        """The table for an epoch (1-based), all rates times ``scale``, and the last rate in it."""
        if not self._constant or scale != self._scale:
            self._scale = scale
            self._fill(slice((epoch - 1) * self._n, epoch * self._n), scale)
        return self._table, float(self._table[-1, 0])

    def _fill(self, steps: slice, scale: float) -> None:
        lr, decay, dropout = self._factors
        rates = scale * self._optimizer.lr if lr is None else lr[steps] * scale * self._optimizer.lr
        decays = self._optimizer.weight_decay * (1.0 if decay is None else decay[steps])
        fill_groups(self._table, self._optimizer, self._scales, rates, decays)
        if dropout is not None:
            self._dropout[...] = np.outer(dropout[steps], self._p)
