# SPDX-License-Identifier: Apache-2.0
"""What the classifier and the regressor share: parameters, the way through `fit`, weights, copies.

scikit-learn's data checks come first, then ours; nothing of the estimator changes before both have passed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from hotloop.errors import NonFiniteError
from hotloop.runtime.device import first_kind
from hotloop.sklearn.callbacks import CallbackSupportMixin, Tasks
from hotloop.sklearn.lbfgs import run_lbfgs
from hotloop.sklearn.network import Network, draw_weights
from hotloop.sklearn.objective import Objective
from hotloop.sklearn.rates import make_optimizer
from hotloop.sklearn.settings import check_settings, hidden_sizes
from hotloop.sklearn.stochastic import Rows, Solver
from hotloop.sklearn.threads import threads_of

Array = NDArray[Any]
#: Whether y brings new classes, all those that are known, or some of them.
Classes = Literal["new", "all", "some"]

#: What is not copied with an estimator: native memory, and a solver in it.
_NATIVE = ("_network", "_solver")

#: Rows up to which dtype="auto" trains in float64: a fit takes milliseconds in either, and float32 sums of so few
#: terms are all that would tell a weighted row from a repeated one.
FLOAT64_ROWS = 64


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """The estimators' common half. Subclasses say what targets are, and how outputs become predictions."""

    _network: Network | None = None
    _solver: Solver | None = None

    # --- what subclasses say ---

    def _check_data(self, X: Any, y: Any, *, reset: bool, classes: Classes) -> tuple[Array, Any]:
        """(X, y) after scikit-learn's checks: features are learnt if ``reset``, and the classes learnt, or
        compared with those that are known."""
        raise NotImplementedError

    def _targets(self, y: Any, real: Any) -> Array:
        """Checked y as the objective takes it: int32 (n,), or (n, outputs) of the dtype ``real``."""
        raise NotImplementedError

    def _objective(self) -> Objective:
        raise NotImplementedError

    def _n_outputs(self, y: Any) -> int:
        raise NotImplementedError

    def _row_weights(self, y: Any, sample_weight: Any) -> Any:
        return sample_weight

    def _strata(self, y: Array) -> Array | None:
        """By what early stopping divides the rows; None at random."""
        return None

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        raise NotImplementedError

    # --- fit ---

    def _fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None, *,
        incremental: bool = False,
    ) -> Any:  # fmt: skip
        hidden = hidden_sizes(self)
        check_settings(self)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._check_data(X, y, reset=first, classes=self._classes_are(incremental))
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        real = self._real(X.shape[0], incremental) if first else self.coefs_[0].dtype
        weight = self._row_weights(y, sample_weight)
        rows = self._rows(X, y, weight, real)
        validation = self._validation_rows(X_val, y_val, real)
        rng = check_random_state(self.random_state)
        if first:
            self._initialize([X.shape[1], *hidden, self._n_outputs(y)], rng, real)
        train, validation = self._divide(rows, validation, rng, incremental=incremental)
        network = self._open(rng, incremental=incremental)
        limit = 1 if incremental else self.max_iter
        tasks = Tasks(self, X, y, sample_weight, max_tasks=limit)
        with network.lock, network.session.entered("fit"):
            if self.solver == "lbfgs":
                run_lbfgs(self, network, self._objective(), train, tasks)
            else:
                solver = self._solver
                assert solver is not None  # `_open` made one
                solver.run(self, train, validation, self._score_outputs, incremental=incremental, tasks=tasks)
        tasks.close()
        if not network.session.memory.is_finite():
            raise ValueError(
                f"[{type(self).__name__}] training ended on weights that are infinite or NaN; scale X to zero mean "
                "and unit variance"
            )
        return self

    def _initialize(self, units: list[int], rng: np.random.RandomState, real: Any) -> None:
        """The attributes of an estimator that has not trained yet."""
        self.n_layers_, self.n_outputs_ = len(units), units[-1]
        self.n_iter_ = self.t_ = 0
        self.coefs_, self.intercepts_ = draw_weights(units, self.activation, rng, real)
        self._network = self._solver = None
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.best_loss_ = None if self.early_stopping else np.inf
            self.validation_scores_: list[float] | None = None
            self.best_validation_score_: float | None = None

    def _open(self, rng: np.random.RandomState, *, incremental: bool) -> Network:
        """The network to train: a new one on the present weights, or the last one if ``incremental``."""
        objective = self._objective()
        optimizer = None if self.solver == "lbfgs" else make_optimizer(self, objective.gradient)
        network, stored = self._network, self.__dict__.pop("_training_state", None)
        if incremental and self._solver is not None and network is not None:
            if network.session.optimizer == optimizer:
                network.take(self.coefs_, self.intercepts_)
                return network
            self._solver = None  # the parameters have changed: other moments
        if not incremental or (stored is not None and stored["made_for"] != optimizer):
            stored = None
        seed = int(rng.randint(np.iinfo(np.int32).max))
        network = Network(
            self.coefs_, self.intercepts_, self.activation, dropout=self.dropout, optimizer=optimizer,
            seed=seed if stored is None else stored["seed"], threads=threads_of(self.n_jobs),
            device=self.device,
        )  # fmt: skip
        self._network = network
        if optimizer is not None:
            self._solver = Solver(self, network, objective)
            if stored is not None:
                self._solver.load(stored)
        self.coefs_, self.intercepts_ = network.coefs, network.intercepts
        return network

    # --- data ---

    def _classes_are(self, incremental: bool) -> Classes:
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            return "new"
        return "all" if self.warm_start else "some"

    def _real(self, rows: int, incremental: bool) -> Any:
        """The dtype of a network that first sees so many rows."""
        few = rows <= FLOAT64_ROWS and not incremental
        few = few and first_kind(self.device) == "cpu"
        return np.dtype(("float64" if few else "float32") if self.dtype == "auto" else self.dtype)

    def _as_real(self, name: str, values: Any, real: Any) -> Array:
        """Checked numbers, dense, rows contiguous. Raises `NonFiniteError` for what float32 cannot hold."""
        dense = values.toarray() if hasattr(values, "toarray") else values
        with np.errstate(over="ignore"):
            out = np.ascontiguousarray(dense, real)
        if out.dtype != dense.dtype and not np.isfinite(out).all():
            bad = ~np.isfinite(out)
            raise NonFiniteError(
                f"[{type(self).__name__}] {name}{np.argwhere(bad)[0].tolist()} is beyond float32 (3.4e38); {bad.sum()} "
                f"bad of {bad.size}; scale {name}, or take dtype='float64'"
            )
        return out

    def _rows(self, X: Any, y: Any, weight: Any, real: Any) -> Rows:
        weight = None if weight is None else np.ascontiguousarray(weight, real)
        return Rows(self._as_real("X", X, real), self._targets(y, real), weight)

    def _validation_rows(self, X_val: Any, y_val: Any, real: Any) -> Rows | None:
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(
                f"[{type(self).__name__}] {missing} is missing; give X_val and y_val, or neither"
            )
        X, y = self._check_data(X_val, y_val, reset=False, classes="some")
        return self._rows(X, y, None, real)

    def _divide(
        self, rows: Rows, validation: Rows | None, rng: np.random.RandomState, *, incremental: bool
    ) -> tuple[Rows, Rows | None]:
        """What to train on and what to score, if anything; attributes for the scores."""
        if self.solver == "lbfgs":
            return rows, None
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.early_stopping and validation is None:
            strata = self._strata(rows.y)
            numbers = np.arange(len(rows))
            kept, held = train_test_split(
                numbers, random_state=rng, test_size=self.validation_fraction, stratify=strata
            )
            if len(held) < 2:
                raise ValueError(
                    f"[{type(self).__name__}] the validation set has {len(held)} of {len(rows)} rows, at least 2 are "
                    "needed; increase validation_fraction, or the size of the dataset"
                )
            rows, validation = rows.take(kept), rows.take(held)
        if validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -np.inf
        return rows, validation

    # --- prediction ---

    def _outputs(self, X: Any) -> Array:
        """Raw outputs (n, outputs) in the network's dtype."""
        check_is_fitted(self, "coefs_")
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=(np.float64, np.float32), reset=False)
        network = self._network
        if network is None:  # a copy, or out of a file
            network = Network(
                self.coefs_,
                self.intercepts_,
                self.activation,
                threads=threads_of(self.n_jobs),
                device=self.device,
            )
            self._network = network
        with network.lock:
            network.take(self.coefs_, self.intercepts_)
            return network.predict(self._as_real("X", X, network.session.real))

    # --- copies ---

    def __getstate__(self) -> dict[str, Any]:
        """Without native memory; with what `partial_fit` needs to go on."""
        state = dict(super().__getstate__())
        for name in _NATIVE:
            state.pop(name, None)
        if self._solver is not None:
            state["_training_state"] = self._solver.state()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic solvers; solver='lbfgs' is not stochastic"
            )
        return True
