# SPDX-License-Identifier: Apache-2.0
"""`MLPClassifier`: scikit-learn's, in the native loop."""

from __future__ import annotations

from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from hotloop.arguments import number
from hotloop.sklearn.base import BaseMLP, Classes
from hotloop.sklearn.callbacks import managed
from hotloop.sklearn.objective import Objective, log_loss

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron for classes, with scikit-learn's parameters, attributes and meanings.

    X may be dense, sparse or a frame; y (n,) labels of any kind, or an indicator matrix (n, L) of several labels.
    What is the same and what is not: docs/scikit_learn.md.

    Args:
        hidden_layer_sizes ... max_fun: as in ``sklearn.neural_network.MLPClassifier``.
        solver: also "adamw", Adam with decoupled decay: ``alpha`` is then what a step takes off the weights per
            unit of the rate, whatever the batch.
        dropout: share of each hidden layer's outputs that a training step drops, in [0, 1).
        schedule: of the learning rate, over ``max_iter`` epochs: a name or an object from `hl.schedules`.
        class_weight: {class: weight}, "balanced", or None: factors of the row weights.
        label_smoothing: in [0, 1): this share of each target is spread over the classes.
        dtype: of the network: "float32", "float64" (slow), or "auto": float64 for a fit of at most 64 rows.
        device: "cpu" or "cuda", which trains in float32; "auto" is the CPU.
        n_jobs: threads of a fit; None decides by the network's size, -1 takes all processors.

    Attributes:
        classes_ (C,); coefs_, arrays (in, out); intercepts_, of (out,); loss_, best_loss_, loss_curve_,
        validation_scores_, best_validation_score_, n_iter_, t_, n_layers_, n_outputs_, out_activation_,
        n_features_in_, feature_names_in_.

    Raises `ValueError` or `TypeError` in `fit`, before it trains, for parameters and data that cannot work.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((16,), learning_rate_init=0.05, tol=0.01, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
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
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        dtype: Literal["auto", "float32", "float64"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        n_jobs: int | None = None,
    ) -> None:
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
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.dtype = dtype
        self.device = device
        self.n_jobs = n_jobs

    # --- training ---

    @managed
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> MLPClassifier:
        """Train on X (n, features) and y; returns self.

        ``sample_weight`` (n,) weighs rows in the loss. ``X_val`` and ``y_val`` are scored after each epoch
        (``validation_scores_``), and with ``early_stopping=True`` stand in place of a part of the rows.
        """
        fitted: MLPClassifier = self._fit(X, y, sample_weight, X_val, y_val)
        return fitted

    @available_if(lambda self: self._check_solver())  # type: ignore[untyped-decorator]
    @managed
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """One epoch on these rows, from where the last call ended; returns self.

        ``classes``: all there will ever be, needed in the first call.
        """
        self._check_first_call(classes, multilabel=type_of_target(y).startswith("multilabel"))
        if isinstance(self.class_weight, str):
            raise ValueError(
                "[MLPClassifier] partial_fit sees a part of the rows, of which class_weight='balanced' cannot tell; "
                "give a dict of weights"
            )
        fitted: MLPClassifier = self._fit(X, y, sample_weight, incremental=True)
        return fitted

    def _check_first_call(self, classes: Any, *, multilabel: bool) -> None:
        known = getattr(self, "classes_", None)
        if classes is None:
            if known is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            return
        given = unique_labels(classes)
        if known is None:
            self.classes_, self._multilabel = given, multilabel
        elif not np.array_equal(known, given):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}"
            )

    # --- prediction ---

    def predict(self, X: Any) -> Array:
        """The class of each row, (n,); for several labels 0 or 1 each, (n, L)."""
        outputs = self._outputs(X)
        found = self._decide(outputs)
        if self._multilabel:
            return found
        labels: Array = self.classes_[np.minimum(found, len(self.classes_) - 1)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, C), in the order of ``classes_``; one for each label, (n, L), if there are several."""
        return self._probabilities(X, softmax, expit)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`, without going through 0."""
        return self._probabilities(X, log_softmax, log_expit)

    def _probabilities(self, X: Any, of_classes: Any, of_label: Any) -> Array:
        outputs = self._outputs(X)
        z = outputs.astype(np.float64)
        if self.out_activation_ == "softmax":
            z = of_classes(z, axis=1)
        elif self._multilabel:
            z = of_label(z)
        else:
            z = np.concatenate([of_label(-z), of_label(z)], axis=1)
        found: Array = z.astype(outputs.dtype, copy=False)
        return found

    # --- what the base asks ---

    def _check_data(self, X: Any, y: Any, *, reset: bool, classes: Classes) -> tuple[Array, Any]:
        number("MLPClassifier", "label_smoothing", self.label_smoothing, low=0, high=1)
        X, y = self._validated(X, y, reset=reset, multi_output=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        kind = type_of_target(y, input_name="y")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            check_classification_targets(y)  # says what is wrong
        if kind.endswith("multioutput"):
            raise ValueError(
                f"[MLPClassifier] y has several columns of classes ({kind}), which is not supported; give labels (n,), "
                "or an indicator matrix of 0 and 1"
            )
        found = unique_labels(y) if y.ndim > 1 else np.unique(y)
        if classes == "new":
            self.classes_, self._multilabel = found, kind.startswith("multilabel")
            return X, y
        unknown = np.setdiff1d(found, self.classes_)
        if len(unknown) or (classes == "all" and len(found) < len(self.classes_)):
            what = (
                "y has classes not in self.classes_"
                if len(unknown)
                else "warm_start needs the classes of before"
            )
            raise ValueError(f"{what}: self.classes_ is {self.classes_}, y has {found}")
        return X, y

    def _targets(self, y: Any, real: Any) -> Array:
        if self._multilabel:
            dense: Array = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
            return self._smooth(dense, real)
        if len(self.classes_) > 2:
            numbers: Array = np.searchsorted(self.classes_, y)
            return numbers.astype(np.int32)
        second = (y == self.classes_[-1]) & (len(self.classes_) == 2)  # of one class, none is the second
        return self._smooth(second.reshape(-1, 1), real)

    def _smooth(self, y: Array, real: Any) -> Array:
        share = self.label_smoothing
        return np.ascontiguousarray(y * (1.0 - share) + share / 2, real)

    def _row_weights(self, y: Any, sample_weight: Any) -> Any:
        if self.class_weight is None:
            return sample_weight
        weight = compute_sample_weight(self.class_weight, y)
        return weight if sample_weight is None else weight * sample_weight

    def _n_outputs(self, y: Any) -> int:
        if self._multilabel:
            return int(y.shape[1])
        return len(self.classes_) if len(self.classes_) > 2 else 1

    def _objective(self) -> Objective:
        multiclass = not self._multilabel and len(self.classes_) > 2
        self.out_activation_ = "softmax" if multiclass else "logistic"
        return log_loss(self.n_outputs_, multiclass=multiclass, label_smoothing=self.label_smoothing)

    def _strata(self, y: Array) -> Array | None:
        """The classes, if each has rows for both parts."""
        if self._multilabel:
            return None
        labels: Array = y.ravel()
        held = int(np.ceil(self.validation_fraction * len(labels)))
        _, counts = np.unique(labels, return_counts=True)
        can = counts.min() >= 2 and min(held, len(labels) - held) >= len(counts)
        return labels if can else None

    def _decide(self, outputs: Array) -> Array:
        """Class numbers (n,), or 0 and 1 for each label (n, L)."""
        if self.out_activation_ == "softmax":
            best: Array = outputs.argmax(axis=1)
            return best
        above = (outputs > 0).astype(np.int64)
        return above if self._multilabel else above[:, 0]

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        right = self._decide(outputs) == (
            y if y.ndim == 1 else (y > 0.5) if self._multilabel else y[:, 0] > 0.5
        )
        return float(np.average(right if right.ndim == 1 else right.all(axis=1), weights=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
