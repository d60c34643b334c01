# SPDX-License-Identifier: Apache-2.0
"""Step by step with scikit-learn's own networks: same seed, same batches, same numbers.

A seed begins with scikit-learn's weights, so with shuffle=False the whole run is the same. In float64 the two agree
to rounding; in float32, ours are that far off.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import neural_network as theirs
from sklearn.exceptions import ConvergenceWarning

import hotloop as hl

ROWS, FEATURES = 61, 5  # 61 rows in batches of 8: the last one has 5


def problem(kind: str) -> tuple[type, type, Any, Any]:
    """(our class, theirs, X, y)"""
    rng = np.random.RandomState(1)
    X = rng.normal(size=(ROWS, FEATURES))
    z = np.tanh(X @ rng.normal(size=(FEATURES, 3))) + 0.3 * rng.normal(size=(ROWS, 3))
    y = {
        "binary": (z[:, 0] > 0).astype(int), "classes": z.argmax(axis=1), "labels": (z > 0).astype(int),
        "number": z[:, 0], "numbers": z, "poisson": np.floor(np.exp(z[:, 0])),
    }[kind]  # fmt: skip
    if kind in ("binary", "classes", "labels"):
        return hl.MLPClassifier, theirs.MLPClassifier, X, y
    return hl.MLPRegressor, theirs.MLPRegressor, X, y


def both(kind: str, *, weight: bool = False, dtype: str = "float64", **options: Any) -> tuple[Any, Any]:
    """Our estimator and scikit-learn's, fitted alike."""
    ours, other, X, y = problem(kind)
    extra = {"sample_weight": np.random.RandomState(2).randint(0, 4, ROWS)} if weight else {}
    if kind == "poisson":
        options["loss"] = "poisson"
    options = {"hidden_layer_sizes": (7, 4), "random_state": 3, "batch_size": 8, "shuffle": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        a = ours(dtype=dtype, **options).fit(X, y, **extra)
        b = other(**options).fit(X, y, **extra)
    return a, b


def difference(a: Any, b: Any) -> float:
    """The largest one of any weight."""
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return float(max(np.abs(np.asarray(x, np.float64) - y).max() for x, y in pairs))


SOLVERS: dict[str, dict[str, Any]] = {
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "plain sgd": {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05},
    "heavy ball": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.05},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.3, "power_t": 0.4},
    "adam": {"solver": "adam"},
    "adam, large epsilon": {"solver": "adam", "epsilon": 1e-2, "beta_1": 0.8, "beta_2": 0.95},
}


@pytest.mark.parametrize("kind", ["binary", "classes", "labels", "number", "numbers", "poisson"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_ten_epochs_are_scikit_learns(kind: str, solver: str) -> None:
    a, b = both(kind, max_iter=10, alpha=0.5, **SOLVERS[solver])
    assert difference(a, b) < 1e-11
    np.testing.assert_allclose(
        a.loss_curve_, b.loss_curve_, atol=1e-4
    )  # tol: an L2 term may be a tenth of it off
    assert a.t_ == b.t_ == 10 * ROWS
    assert a.out_activation_ == b.out_activation_


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_activations_begin_and_train_as_scikit_learns(activation: str) -> None:
    a, b = both("classes", activation=activation, max_iter=5)
    assert difference(a, b) < 1e-12


@pytest.mark.parametrize("kind", ["binary", "classes", "labels", "numbers"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_row_weights_count_in_loss_and_decay(kind: str, solver: str) -> None:
    a, b = both(kind, weight=True, max_iter=5, alpha=0.5, **SOLVERS[solver])
    assert difference(a, b) < 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_is_as_far_off_as_its_rounding(solver: str) -> None:
    a, b = both("classes", dtype="float32", max_iter=1, alpha=0.5, **SOLVERS[solver])
    assert a.coefs_[0].dtype == np.float32
    assert difference(a, b) < 2e-6  # eight steps of numbers near 1, each to 6e-8; Adam divides small by small


def test_the_loss_is_scikit_learns_at_its_default_alpha() -> None:
    a, b = both("classes", max_iter=20)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=2e-6)


def test_one_batch_has_the_exact_loss() -> None:
    a, b = both("classes", batch_size=ROWS, max_iter=20, alpha=2.0)
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-10)


@pytest.mark.parametrize("kind", ["binary", "classes", "labels", "number", "poisson"])
def test_lbfgs_finds_what_scikit_learn_finds(kind: str) -> None:
    a, b = both(kind, solver="lbfgs", max_iter=30, alpha=0.5)
    assert a.n_iter_ == b.n_iter_
    assert a.loss_ == pytest.approx(b.loss_, rel=1e-6)
    assert difference(a, b) < 1e-3  # the line search amplifies rounding


def test_lbfgs_weights_rows_and_sums_batches() -> None:
    rng = np.random.RandomState(0)
    X = rng.normal(size=(2500, 4))  # three native batches
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    weight = rng.randint(0, 3, 2500)
    options = {"hidden_layer_sizes": (6,), "solver": "lbfgs", "random_state": 0, "max_iter": 15, "alpha": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        a = hl.MLPClassifier(dtype="float64", **options).fit(X, y, weight)
        b = theirs.MLPClassifier(**options).fit(X, y, sample_weight=weight)
        c = hl.MLPClassifier(**options).fit(X, y, weight)
    assert a.loss_ == pytest.approx(b.loss_, rel=1e-7)
    assert c.loss_ == pytest.approx(b.loss_, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 1e-2, "n_iter_no_change": 2},
        {"solver": "adam", "tol": 5e-3, "n_iter_no_change": 3},
        {"solver": "adam", "early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 4},
        {"solver": "sgd", "early_stopping": True, "validation_fraction": 0.3, "learning_rate": "adaptive",
         "n_iter_no_change": 2, "tol": 1e-2},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["binary", "number"])
def test_stopping_is_scikit_learns(options: dict[str, Any], kind: str) -> None:
    a, b = both(kind, max_iter=800, batch_size="auto", **options)
    assert a.n_iter_ == b.n_iter_ < 800
    assert difference(a, b) < 1e-9
    if options.get("early_stopping"):
        np.testing.assert_allclose(a.validation_scores_, b.validation_scores_, atol=1e-9)
        assert a.best_validation_score_ == pytest.approx(b.best_validation_score_)
        assert a.best_loss_ is b.best_loss_ is None
    else:
        assert a.best_loss_ == pytest.approx(b.best_loss_, rel=1e-9)
        assert a.validation_scores_ is a.best_validation_score_ is None


@pytest.mark.parametrize("kind", ["binary", "classes", "labels", "number", "numbers", "poisson"])
def test_predictions_are_scikit_learns(kind: str) -> None:
    a, b = both(kind, max_iter=20)
    _, _, X, y = problem(kind)
    np.testing.assert_allclose(a.predict(X), b.predict(X), rtol=1e-9)
    assert a.score(X, y) == pytest.approx(b.score(X, y))
    if hasattr(a, "predict_proba"):
        np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=1e-8)
        np.testing.assert_allclose(a.predict_log_proba(X), b.predict_log_proba(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_and_warm_start_are_scikit_learns(solver: str) -> None:
    ours, other, X, y = problem("classes")
    fitted = []
    for cls, extra in ((ours, {"dtype": "float64"}), (other, {})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = cls(
                (6,), solver=solver, random_state=0, shuffle=False, max_iter=4, warm_start=True, **extra
            )
            model.partial_fit(X[:30], y[:30], classes=[0, 1, 2]).partial_fit(X[30:], y[30:])
            for _ in range(3):
                model.fit(X, y)
        fitted.append(model)
    assert difference(*fitted) < 1e-12
    assert len(fitted[0].loss_curve_) == len(fitted[1].loss_curve_) > 10
    assert fitted[0].t_ == fitted[1].t_
