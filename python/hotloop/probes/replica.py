# SPDX-License-Identifier: Apache-2.0
"""A replica: a copy of a trainer's model and optimiser, and an engine that trains it.

A copy, not a snapshot that is put back later: the model, its moments, counters, BatchNorm statistics, packed
weights and choice of threads cannot be disturbed, not by an exception, a Ctrl-C or a view that somebody holds.
Random numbers are functions of (seed, run, step), so that there is no generator to put back either.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hotloop.engine.native import Data, Engine, TrainPass
from hotloop.runtime.memory import Snapshot
from hotloop.runtime.session import Doubles


class Replica:
    """A copy of the model of ``engine``, with fresh moments unless ``keep_moments`` is set.

    ``memory`` is the copy; `restart` brings it back to how it began.
    """

    def __init__(self, engine: Engine, *, keep_moments: bool = False) -> None:
        self.session = engine.session.replica()
        self.engine = engine.on(self.session)
        self.memory = self.session.memory
        if not keep_moments:
            self.memory.reset_optimizer()
        self._begin: Snapshot = self.memory.snapshot()

    def restart(self) -> None:
        """Back to the numbers that the replica began with."""
        self.memory.restore(self._begin)

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> TrainPass:
        """A pass over the data that trains the replica."""
        return self.engine.prepare(data, batch_size, shuffle=shuffle, run=run)

    def params(self, train: TrainPass, rates: Doubles) -> Doubles:
        """The table of step parameters with these learning rates, (n,): a row for each."""
        scales = self.engine.grouping.scales
        return self.session.params_table(
            train.executable.plan, self.engine.graph, rates, lr=1.0, scales=scales
        )


def batch_losses(train: TrainPass, params: Doubles, batches: int, *, first: int = 0) -> Iterator[float]:
    """Train batch after batch from step ``first``, each with its row of ``params``, over epochs of so many
    ``batches``; the loss of each before its update. Ends early behind one that diverges."""
    loss = 0.0
    for i in range(len(params)):
        epoch, batch = divmod(first + i, batches)
        totals = train.totals()
        totals[:2] = 0.0  # the loss's; the weight of what an update has summed so far stays
        train.load_totals(totals)
        _, status = train.run(epoch, params[i : i + 1], None, None, batch, 1)
        now = train.metrics()["loss"]
        if status == "diverged":
            yield now
            return
        loss = loss if np.isnan(now) else now  # without a row of weight > 0 a batch has no loss
        yield loss
