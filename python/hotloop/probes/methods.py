# SPDX-License-Identifier: Apache-2.0
"""`Probes`: the methods of a trainer that try or reckon something before a run, on a copy of its model.

Arguments are checked as in `fit`, by the same functions; nothing of the trainer changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

from hotloop import metrics as metrics_
from hotloop.arguments import count, number
from hotloop.engine.native import Data, Engine, NativeEngine
from hotloop.fit.setup import check_batches, check_data, make_engine
from hotloop.inputs.frames import Names, ready_pair
from hotloop.runtime.session import Session

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.fit.cost import CostPlan
    from hotloop.probes.lr_result import LrFind
    from hotloop.probes.overfit import OverfitCheck


class Probes:
    """Tries things before a run. Not to be made itself: `Trainer` is one."""

    loss: Any
    metrics: Union[str, Iterable[str], None]
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    ema: float | None
    restore_best: bool
    freeze: Any
    feature_names: Names
    preprocessor: Preprocessor | None
    _session: Session
    _runs: int

    def lr_find(
        self, X: Any, y: Any, *, sample_weight: Any = None, batch_size: int = 32, start: float = 1e-7,
        end: float = 10.0, steps: int = 100, replicas: int = 3,
    ) -> LrFind:  # fmt: skip
        """Suggest a learning rate, from short runs whose rate grows in every step. The model, its optimiser's
        state, BatchNorm's statistics and the history stay as they are, bit for bit.

        Args:
            X, y, sample_weight, batch_size: as in `fit`.
            start, end: the smallest and the largest rate, with a constant ratio between steps.
            steps: how many rates; a run ends earlier when the loss diverges.
            replicas: how many such runs are averaged, each over another order of the rows.

        The suggestion is a tenth of the rate at which the smoothed loss is least (the rule "minimum" of
        fastai's finder; the test is Smith's, 2017, arXiv:1506.01186), and None where the loss does not fall
        beyond its noise. It takes the time of at most ``2 * steps * replicas`` steps of training. The trainer's
        schedule is not used. Raises as `fit`.

        >>> import numpy as np, hotloop as hl
        >>> X = np.linspace(-1, 1, 640, dtype=np.float32).reshape(-1, 1)
        >>> found = hl.Trainer(hl.nn.Linear(1, 1), "mse", optimizer="sgd").lr_find(X, 3 * X)
        >>> 0.01 < found.suggestion < 1
        True
        """
        start, end = number("lr_find", "start", start), number("lr_find", "end", end)
        if not 0 < start < end:
            raise ValueError(f"[lr_find] start and end must be 0 < start < end, got {start:g} and {end:g}")
        steps = count("lr_find", "steps", steps, low=10)
        replicas = count("lr_find", "replicas", replicas, low=1)
        batch_size = count("lr_find", "batch_size", batch_size, low=1)
        with self._session.entered("lr_find"):
            engine, data = self._probe(X, y, sample_weight, "lr_find", None)
            batch_size = min(batch_size, data.rows)
            check_batches(engine.graph, data.rows, batch_size, "lr_find", engine.grouping.always_frozen)
            from hotloop.probes.lr_range import find_lr

            return find_lr(
                engine, data, batch_size=batch_size, start=start, end=end, steps=steps, replicas=replicas,
                run=self._runs,
            )  # fmt: skip

    def overfit_batch(
        self, X: Any, y: Any, *, sample_weight: Any = None, batch_size: int = 32, steps: int = 200
    ) -> OverfitCheck:
        """Check whether the model can learn one batch by heart: a model that cannot will not learn a data set.

        Args:
            X, y, sample_weight: as in `fit`; one batch of ``batch_size`` of its rows is drawn by the seed.
            steps: of training on that batch, at the optimiser's learning rate, without dropout.

        A copy of the model is trained; the model, the optimiser's state and the history stay as they are, bit
        for bit. It can if every row is classified right, or R2 on the batch is at least 0.95; otherwise
        ``verdict`` names the likeliest cause. Raises as `fit`.

        >>> import numpy as np, hotloop as hl
        >>> X = np.eye(8, dtype=np.float32)
        >>> trainer = hl.Trainer(hl.nn.Linear(8, 4), optimizer=hl.optim.AdamW(0.1))
        >>> trainer.overfit_batch(X, np.arange(8) % 4).verdict
        'can memorise one batch'
        """
        batch_size = count("overfit_batch", "batch_size", batch_size, low=1)
        steps = count("overfit_batch", "steps", steps, low=1)
        with self._session.entered("overfit_batch"):
            engine, data = self._probe(X, y, sample_weight, "overfit_batch", "auto")
            from hotloop.probes.overfit import draw, overfit_batch

            rows = draw(data, batch_size, self._session.seed)
            check_batches(engine.graph, len(rows), len(rows), "overfit_batch", engine.grouping.always_frozen)
            return overfit_batch(engine, data, rows, lr=self._session.optimizer.lr, steps=steps)

    def plan(self, X: Any, y: Any, batch_size: int = 32) -> CostPlan:
        """What training on this data costs (FLOPs, bytes, seconds per epoch), and the compiled steps. The
        model is left as it is. Raises as `fit`, and `ValueError` for a callable loss."""
        batch_size = count("plan", "batch_size", batch_size, low=1)
        with self._session.entered("plan"):
            X, y = ready_pair(self, X, y, "plan", expected=self.feature_names)
            data, graph, loss = check_data(self._session, X, y, None, self.loss, where="plan")
            names = metrics_.native(metrics_.resolve(self.metrics, loss, y))
            engine = make_engine(
                self._session, graph, loss, names, self.clip_norm, self.clip_value, self.accumulate, self.ema,
                self._session.grouping(self.freeze, where="plan"),
            )  # fmt: skip
            if not isinstance(engine, NativeEngine):
                raise ValueError("[plan] a callable loss runs outside the plan; its cost is not known")
            from hotloop.fit import cost

            return cost.cost_plan(engine, data, min(batch_size, data.rows), keeps_epochs=self.restore_best)

    def _probe(self, X: Any, y: Any, weight: Any, where: str, metrics: str | None) -> tuple[Engine, Data]:
        """The engine of a run, and the data in canonical form. Raises as `fit`."""
        X, y = ready_pair(self, X, y, where, expected=self.feature_names)
        data, graph, loss = check_data(self._session, X, y, weight, self.loss, where=where)
        names = metrics_.resolve(metrics, loss, y)
        grouping = self._session.grouping(self.freeze, where=where)  # as in the first epoch
        engine = make_engine(
            self._session, graph, loss, names, self.clip_norm, self.clip_value, grouping=grouping
        )
        return engine, data
