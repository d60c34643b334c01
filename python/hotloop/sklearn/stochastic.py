# SPDX-License-Identifier: Apache-2.0
"""The stochastic solvers: native epochs, and between them scikit-learn's rules of stopping.

The rules write the estimator's attributes as scikit-learn's does, so that `partial_fit` and `warm_start` go on
from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from hotloop import _core
from hotloop.compile.plan import LossSpec
from hotloop.engine.callable import CallableEngine
from hotloop.engine.native import Data, Engine, NativeEngine, TrainPass
from hotloop.runtime.grouping import fill_groups
from hotloop.runtime.parallel import stop_flag
from hotloop.runtime.session import Status
from hotloop.sklearn.callbacks import Tasks
from hotloop.sklearn.network import Network
from hotloop.sklearn.objective import Objective
from hotloop.sklearn.penalty import Penalty
from hotloop.sklearn.rates import Rates

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """A part of the data: X (n, features), y as the objective takes it, weights (n,) or None."""

    X: Array
    y: Array
    weight: Array | None

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: Array) -> Rows:
        return Rows(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def data(self, input: str, objective: Objective) -> Data:
        extra = {} if self.weight is None else {"sample_weight": self.weight}
        return Data({input: self.X, "target": self.y, **extra}, objective.kind)


def make_engine(network: Network, objective: Objective, accumulate: int = 1) -> Engine:
    """The engine of a loss in the plan, or of a Python function."""
    if isinstance(objective.loss, LossSpec):
        return NativeEngine(network.session, network.graph, objective.loss, (), accumulate=accumulate)
    return CallableEngine(network.session, network.graph, objective.loss, (), accumulate=accumulate)


def batch_size_of(estimator: Any, rows: int) -> int:
    """Rows of a batch, as scikit-learn chooses and clips them."""
    if estimator.batch_size == "auto":
        return min(200, rows)
    if estimator.batch_size > rows:
        warnings.warn(
            f"[fit] batch_size={estimator.batch_size} is more than the {rows} rows there are; all are used",
            UserWarning,
            stacklevel=2,
        )
    return min(int(estimator.batch_size), rows)


class Solver:
    """The solver of one network: what `partial_fit` goes on with. ``score`` maps raw outputs, targets and
    weights of validation rows to the score that early stopping watches."""

    def __init__(self, estimator: Any, network: Network, objective: Objective) -> None:
        self.network, self.objective = network, objective
        self.rates = Rates(estimator, objective.gradient)
        self.epochs = 0  # so far; each has a shuffle of its own

    def run(
        self, estimator: Any, train: Rows, validation: Rows | None, score: Callable[..., float], *,
        incremental: bool, tasks: Tasks,
    ) -> None:  # fmt: skip
        """Train for ``max_iter`` epochs at most, or for one if ``incremental``; callbacks see each of them."""
        fit = _Fit(self, estimator, train, validation, score)
        estimator.n_iter_ = 0
        with stop_flag() as stop:
            for _ in range(1 if incremental else estimator.max_iter):
                tasks.begin()
                whole = fit.epoch(stop)
                if not whole or stop.is_set():  # an epoch of one batch ends before it looks
                    warnings.warn(
                        "[fit] interrupted: the model is as trained so far", UserWarning, stacklevel=2
                    )
                    break
                over, asked = fit.is_over(), tasks.end()
                if over or asked:
                    break
                if estimator.n_iter_ == estimator.max_iter and not incremental and estimator.schedule is None:
                    warnings.warn(
                        f"[fit] {estimator.max_iter} epochs (max_iter) did not meet the tolerance; increase "
                        "max_iter, or tol",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        fit.end()

    def state(self) -> dict[str, Any]:
        """Plain data and arrays from which `load` goes on."""
        return {
            "made_for": self.network.session.optimizer, "seed": self.network.session.seed,
            "moments": self.network.session.memory.optimizer_state(),
            "epochs": self.epochs, "updates": self.rates.updates, "learning_rate": self.rates.learning_rate,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave, of the same network and optimiser."""
        self.network.session.memory.load_optimizer_state(state["moments"], "partial_fit")
        self.epochs, self.rates.updates = state["epochs"], state["updates"]
        self.rates.learning_rate = state["learning_rate"]


class _Fit:
    """One call of fit or partial_fit."""

    def __init__(
        self,
        solver: Solver,
        estimator: Any,
        train: Rows,
        validation: Rows | None,
        score: Callable[..., float],
    ) -> None:
        self.solver, self.est, self.network = solver, estimator, solver.network
        self.train, self.validation, self.score = train, validation, score
        session = self.network.session
        self.memory = session.memory
        self.batch_size = batch_size_of(estimator, len(train))
        self.n_batches = -(-len(train) // self.batch_size)
        solver.rates.begin(estimator, self.n_batches)
        engine = make_engine(self.network, solver.objective)
        self.train_pass: TrainPass = engine.prepare(
            train.data(self.network.input, solver.objective), self.batch_size,
            shuffle=bool(estimator.shuffle), run=0,
        )  # fmt: skip
        plan = self.train_pass.executable.plan
        self.table = session.params_table(plan, self.network.graph, np.ones(self.n_batches))
        sizes = np.full(self.n_batches, float(self.batch_size))
        sizes[-1] = len(train) - self.batch_size * (self.n_batches - 1)
        self.weights = sizes  # of the rows of each batch; anew in every epoch if rows have weights
        self.decays = solver.rates.decays(estimator, sizes)
        self.penalty = Penalty(estimator, sizes)
        self.first = solver.epochs
        self.best = self.memory.snapshot() if self._restores else None
        self.norm = self.network.square_norm()

    @property
    def _restores(self) -> bool:
        return self.est.early_stopping and self.validation is not None

    def _batch_weights(self, weight: Array) -> Array:
        """The sum of the row weights of each batch of this epoch, (batches,)."""
        if self.est.shuffle:
            seed = self.network.session.seed
            weight = weight[_core.permutation(len(weight), seed=seed, run=0, epoch=self.solver.epochs)]
        return np.add.reduceat(weight.astype(np.float64), np.arange(0, len(weight), self.batch_size))

    def epoch(self, stop: Any) -> bool:
        """One epoch, and what scikit-learn notes of it; False if Ctrl-C ended it."""
        est, solver = self.est, self.solver
        if self.train.weight is not None and (est.shuffle or solver.epochs == self.first):
            self.weights = self._batch_weights(self.train.weight)
            self.decays = solver.rates.decays(est, self.weights)
        rates = solver.rates.next(est, self.n_batches)
        fill_groups(self.table, self.network.session.optimizer, (1.0,), rates, self.decays)
        status, norms = self._train(stop)
        if status == "stopped":
            return False
        if status == "diverged" or not self.memory.is_finite():
            raise ValueError(
                f"[{type(est).__name__}] the loss or a weight became infinite or NaN in epoch {est.n_iter_ + 1}; "
                "scale X to zero mean and unit variance, or try a smaller learning_rate_init"
            )
        solver.epochs += 1
        solver.rates.updates += self.n_batches
        est.n_iter_ += 1
        est.t_ += len(self.train)
        est.loss_ = self.train_pass.metrics()["loss"] * solver.objective.value
        est.loss_ += self.penalty.value(norms, self.weights)
        est.loss_curve_.append(est.loss_)
        self._say(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        self._judge()
        return True

    def _train(self, stop: Any) -> tuple[Status, list[float]]:
        """One epoch: how it ended, and |W|^2 as the penalty wants it."""
        norms = [self.norm]
        status: Status = "done"
        parts = range(self.n_batches) if self.penalty.every_batch else (0,)
        for batch in parts:
            count = 1 if len(parts) > 1 else -1
            _, status = self.train_pass.run(self.solver.epochs, self.table, stop, None, batch, count)
            if status not in ("done", "paused"):
                break
            norms.append(self.network.square_norm())
        self.norm = norms[-1]
        return status, norms

    def _judge(self) -> None:
        """scikit-learn's count of epochs without improvement, by validation score or training loss."""
        est = self.est
        if self.validation is not None:
            outputs = self.network.outputs(self.validation.X)
            score = self.score(outputs, self.validation.y, self.validation.weight)
            est.validation_scores_.append(score)
            self._say(f"Validation score: {score:f}")
            better = score > est.best_validation_score_
            worse = score < est.best_validation_score_ + est.tol
            if better:
                est.best_validation_score_ = score
                if self._restores:
                    self.best = self.memory.snapshot(self.best)
        if not est.early_stopping:
            worse = est.loss_ > est.best_loss_ - est.tol
            est.best_loss_ = min(est.best_loss_, est.loss_)
        est._no_improvement_count = est._no_improvement_count + 1 if worse else 0

    def is_over(self) -> bool:
        """Whether nothing has improved for too long; a rate may fall instead."""
        est = self.est
        self._rescale(self.solver.rates.epoch_end(est, est.t_, self._monitored))
        if est._no_improvement_count <= est.n_iter_no_change:
            return False
        what = "Validation score" if est.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} consecutive epochs."
        )
        ratio = self.solver.rates.no_improvement(est, message, self._say)
        if ratio is None:
            return True
        self._rescale(ratio)
        est._no_improvement_count = 0
        return False

    @property
    def _monitored(self) -> float:
        """What a schedule of plateaus looks at."""
        return float(self.est.validation_scores_[-1] if self.est.early_stopping else self.est.loss_)

    def _rescale(self, ratio: float) -> None:
        """scikit-learn's velocity holds the rate that it was made with, ours does not."""
        if ratio != 1.0 and self.est.momentum:
            self.memory.native.moment1[...] *= self.network.session.real.type(ratio)

    def _say(self, text: str) -> None:
        if self.est.verbose:
            print(text)

    def end(self) -> None:
        """Back to the best epoch, where early stopping chose one."""
        if self.best is not None:
            self.memory.restore(self.best)
