# SPDX-License-Identifier: Apache-2.0
"""`MLPRegressor`: scikit-learn's, in the native loop."""

from __future__ import annotations

from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from hotloop.arguments import choice
from hotloop.sklearn.base import BaseMLP, Classes
from hotloop.sklearn.callbacks import managed
from hotloop.sklearn.objective import Objective, poisson, squared_error

Array = NDArray[Any]


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron for numbers, with scikit-learn's parameters, attributes and meanings.

    X may be dense, sparse or a frame; y (n,) or (n, outputs). Numbers are float32: scale y if its values are far
    from 0 compared with how much they differ. What is the same and what is not: docs/scikit_learn.md.

    Args:
        loss: "squared_error", or "poisson" for y >= 0, which predicts ``exp(output)``; its gradient is Python's,
            and so slower.
        hidden_layer_sizes ... max_fun: as in ``sklearn.neural_network.MLPRegressor``.
        solver, dropout, schedule, dtype, device, n_jobs: as in `MLPClassifier`.

    Attributes:
        coefs_, arrays (in, out); intercepts_, of (out,); loss_, best_loss_, loss_curve_,
        validation_scores_ (R2), best_validation_score_, n_iter_, t_, n_layers_, n_outputs_, out_activation_,
        n_features_in_, feature_names_in_.

    Raises `ValueError` or `TypeError` in `fit`, before it trains, for parameters and data that cannot work.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> model = MLPRegressor(hidden_layer_sizes=(32,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.99
    True
    """

    def __init__(
        self,
        loss: Literal["squared_error", "poisson"] = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Literal["identity", "logistic", "tanh", "relu"] = "relu",
        *,
        solver: Literal["lbfgs", "sgd", "adam", "adamw"] = "adam",
        alpha: float = 0.0001,
        batch_size: Union[int, Literal["auto"]] = "auto",
        learning_rate: Literal["constant", "invscaling", "adaptive"] = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Union[bool, int] = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        schedule: Any = None,
        dtype: Literal["auto", "float32", "float64"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.schedule = schedule
        self.dtype = dtype
        self.device = device
        self.n_jobs = n_jobs

    # --- training ---

    @managed
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> MLPRegressor:
        """Train on X (n, features) and y; returns self.

        ``sample_weight`` (n,) weighs rows in the loss. ``X_val`` and ``y_val`` are scored after each epoch
        (``validation_scores_``), and with ``early_stopping=True`` stand in place of a part of the rows.
        """
        fitted: MLPRegressor = self._fit(X, y, sample_weight, X_val, y_val)
        return fitted

    @available_if(lambda self: self._check_solver())  # type: ignore[untyped-decorator]
    @managed
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One epoch on these rows, from where the last call ended; returns self."""
        fitted: MLPRegressor = self._fit(X, y, sample_weight, incremental=True)
        return fitted

    def predict(self, X: Any) -> Array:
        """Predictions (n,), or (n, outputs) if there are several, in the network's dtype."""
        found = self._means(self._outputs(X))
        return found.ravel() if found.shape[1] == 1 else found

    # --- what the base asks ---

    def _check_data(self, X: Any, y: Any, *, reset: bool, classes: Classes) -> tuple[Array, Any]:
        choice("MLPRegressor", "loss", self.loss, ("squared_error", "poisson"))
        X, y = self._validated(X, y, reset=reset, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and (y < 0).any():
            row = int(np.argmax((y < 0).reshape(len(y), -1).any(axis=1)))
            raise ValueError(f"[MLPRegressor] loss='poisson' needs y >= 0, got {y[row]} in row {row}")
        if not reset and self._n_outputs(y) != self.n_outputs_:
            raise ValueError(
                f"[MLPRegressor] y has {self._n_outputs(y)} outputs, the fitted network {self.n_outputs_}"
            )
        return X, y

    def _targets(self, y: Any, real: Any) -> Array:
        return self._as_real("y", y.reshape(len(y), -1), real)

    def _n_outputs(self, y: Any) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _objective(self) -> Objective:
        self.out_activation_ = "exp" if self.loss == "poisson" else "identity"
        return poisson() if self.loss == "poisson" else squared_error(self.n_outputs_)

    def _means(self, outputs: Array) -> Array:
        if self.out_activation_ != "exp":
            return outputs
        with np.errstate(over="ignore"):
            means: Array = np.exp(outputs)
        return means

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        means = self._means(outputs)
        return float(r2_score(y, means, sample_weight=weight)) if np.isfinite(means).all() else float("nan")
