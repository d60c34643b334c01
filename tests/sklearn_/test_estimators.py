# SPDX-License-Identifier: Apache-2.0
"""What scikit-learn's own networks cannot do, and how bad input is met."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.preprocessing import StandardScaler

import hotloop as hl

IRIS = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def fast(**options: Any) -> Any:
    return hl.MLPClassifier(**({"hidden_layer_sizes": (12,), "max_iter": 30, "random_state": 0} | options))


def test_attributes_are_as_documented() -> None:
    model = fast().fit(*IRIS)
    assert [w.shape for w in model.coefs_] == [(4, 12), (12, 3)]
    assert [b.shape for b in model.intercepts_] == [(12,), (3,)]
    assert {a.dtype for a in model.coefs_ + model.intercepts_} == {np.dtype(np.float32)}
    assert (model.n_layers_, model.n_outputs_, model.n_features_in_) == (3, 3, 4)
    assert model.t_ == 30 * 150 and len(model.loss_curve_) == model.n_iter_ == 30
    assert model.loss_ == model.loss_curve_[-1] and model.best_loss_ == min(model.loss_curve_)
    assert model.out_activation_ == "softmax"


def test_max_iter_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="increase max_iter"):
        fast(max_iter=2).fit(*IRIS)


def test_adamw_takes_decay_off_the_weights_alone() -> None:
    X, y = IRIS
    options = {"solver": "adamw", "learning_rate_init": 0.1, "shuffle": False, "max_iter": 1}
    heavy, none = fast(alpha=0.5, **options).fit(X, y), fast(alpha=0.0, **options).fit(X, y)
    rng = np.random.RandomState(0)
    bound = np.sqrt(6 / 16)
    first = rng.uniform(-bound, bound, (4, 12))
    np.testing.assert_allclose(none.coefs_[0] - heavy.coefs_[0], 0.1 * 0.5 * first, atol=1e-6)
    np.testing.assert_array_equal(none.intercepts_[0], heavy.intercepts_[0])


def test_dropout_trains_and_predicts_without_it() -> None:
    model = fast(dropout=0.3, max_iter=200, learning_rate_init=0.02).fit(*IRIS)
    assert model.score(*IRIS) > 0.9
    np.testing.assert_array_equal(model.predict_proba(IRIS[0]), model.predict_proba(IRIS[0]))
    assert model.loss_ != fast(max_iter=200, learning_rate_init=0.02).fit(*IRIS).loss_
    with pytest.raises(ValueError, match=r"dropout=0.3 makes the loss random"):
        fast(dropout=0.3, solver="lbfgs").fit(*IRIS)


def test_class_weight_is_a_row_weight() -> None:
    X, y = IRIS
    rows = np.where(y == 2, 3.0, 1.0)
    weighted = fast(class_weight={2: 3.0}).fit(X, y)
    np.testing.assert_array_equal(weighted.coefs_[0], fast().fit(X, y, rows).coefs_[0])
    both = fast(class_weight={2: 3.0}).fit(X, y, rows)
    np.testing.assert_array_equal(both.coefs_[0], fast().fit(X, y, rows * rows).coefs_[0])
    balanced = fast(class_weight="balanced").fit(X[40:], y[40:])  # 10, 50, 50 rows
    rows = 110 / (3 * np.array([10, 50, 50]))[y[40:]]
    np.testing.assert_array_equal(balanced.coefs_[0], fast().fit(X[40:], y[40:], rows).coefs_[0])
    with pytest.raises(ValueError, match="class_weight='balanced' cannot tell"):
        fast(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


def test_label_smoothing_keeps_probabilities_from_the_ends() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    for labels in (y, y + (X[:, 0] > 1)):  # two classes, three classes
        sharp, smooth = (
            fast(label_smoothing=s, max_iter=200).fit(X, labels).predict_proba(X).max(axis=1).mean()
            for s in (0.0, 0.3)
        )
        assert smooth < sharp - 0.05
    with pytest.raises(ValueError, match="label_smoothing must be"):
        fast(label_smoothing=2.0).fit(X, y)


def test_validation_data_of_ones_own() -> None:
    X, y = IRIS
    rows = np.random.RandomState(0).permutation(150)
    part, held = rows[:100], rows[100:]
    watched = fast().fit(X[part], y[part], X_val=X[held], y_val=y[held])
    assert len(watched.validation_scores_) == 30 and watched.n_iter_ == 30
    assert watched.validation_scores_[-1] == watched.score(X[held], y[held])
    np.testing.assert_array_equal(watched.coefs_[0], fast().fit(X[part], y[part]).coefs_[0])
    stopped = fast(early_stopping=True, max_iter=500, learning_rate_init=0.05)
    stopped.fit(X[part], y[part], X_val=X[held], y_val=y[held])
    assert stopped.n_iter_ < 500
    assert stopped.best_validation_score_ == stopped.score(X[held], y[held])
    with pytest.raises(ValueError, match="y_val is missing"):
        fast().fit(X, y, X_val=X)


def test_schedules_are_ours() -> None:
    X, y = IRIS
    named = fast(schedule="cosine").fit(X, y)
    given = fast(schedule=hl.schedules.Cosine()).fit(X, y)
    np.testing.assert_array_equal(named.coefs_[0], given.coefs_[0])
    assert np.abs(named.coefs_[0] - fast().fit(X, y).coefs_[0]).max() > 1e-4
    warm = fast(schedule=hl.schedules.Constant(warmup=0.5), solver="sgd", learning_rate_init=0.05).fit(X, y)
    assert warm.loss_curve_[5] > fast(solver="sgd", learning_rate_init=0.05).fit(X, y).loss_curve_[5]
    fast(schedule=hl.schedules.ReduceOnPlateau(0.5, 1)).fit(X, y)
    with pytest.raises(ValueError, match="both change the rate"):
        fast(solver="sgd", learning_rate="adaptive", schedule="cosine").fit(X, y)


def test_a_step_schedule_changes_the_rate_at_its_epoch() -> None:
    X, y = IRIS
    halved = fast(schedule=hl.schedules.Step(10, 0.0), max_iter=20, solver="adam").fit(X, y)
    np.testing.assert_array_equal(halved.coefs_[0], fast(max_iter=10).fit(X, y).coefs_[0])


def test_several_labels() -> None:
    X, y = make_multilabel_classification(400, 10, n_classes=4, random_state=0)
    model = fast(max_iter=200, learning_rate_init=0.03).fit(X, y)
    assert model.predict(X).shape == model.predict_proba(X).shape == y.shape
    assert model.score(X, y) > 0.4 and model.out_activation_ == "logistic"
    again = fast(max_iter=200, learning_rate_init=0.03).fit(X, sparse.csr_array(y))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_sparse_frames_and_dtypes_train_alike() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    dense = fast(max_iter=5).fit(X, y)
    for other in (
        sparse.csr_matrix(X),
        sparse.csc_array(X),
        X.astype(np.float32),
        X.astype(np.int64),
        X.tolist(),
    ):
        model = fast(max_iter=5).fit(other, y)
        np.testing.assert_array_equal(model.coefs_[0], dense.coefs_[0])
        np.testing.assert_array_equal(model.predict_proba(other), dense.predict_proba(X))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_features(library: str) -> None:
    frames = pytest.importorskip(library)
    X, y = IRIS
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    model = fast().fit(frame, y)
    assert list(model.feature_names_in_) == names
    np.testing.assert_array_equal(model.predict(frame), fast().fit(X, y).predict(X))
    other = frames.DataFrame(dict(zip([*names[:3], "width of petals"], X.T, strict=True)))
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- width of petals"):
        model.predict(other)


def test_labels_of_any_kind() -> None:
    X, y = IRIS
    for names in (np.array(["a", "b", "c"]), np.array(["x", "y", "z"], object), np.array([-5, 7, 100])):
        model = fast().fit(X, names[y])
        np.testing.assert_array_equal(model.classes_, names)
        assert set(model.predict(X)) <= set(names)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs", "adamw"])
def test_copies_predict_the_same_and_train_on(copied: Any, solver: str) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400]
    model = fast(solver=solver)
    if solver == "lbfgs":
        model.fit(X, y)
    else:
        for _ in range(3):
            model.partial_fit(X, y, classes=range(10))
    twin = copied(model)
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))
    if solver != "lbfgs":  # the same moments, steps and shuffles
        if copied is copy.copy:  # which shares the arrays of the weights
            twin.coefs_ = [w.copy() for w in twin.coefs_]
            twin.intercepts_ = [b.copy() for b in twin.intercepts_]
        model.partial_fit(X, y)
        twin.partial_fit(X, y)
        np.testing.assert_array_equal(twin.coefs_[0], model.coefs_[0])


def test_weights_may_be_read_and_set() -> None:
    X, y = IRIS
    model = fast().fit(X, y)
    model.coefs_[1][...] = 0
    model.intercepts_[1][...] = [0, 5, 0]
    assert set(model.predict(X)) == {1}
    model.intercepts_ = [model.intercepts_[0], np.array([0.0, 0.0, 5.0])]
    assert set(model.predict(X)) == {2}
    assert set(pickle.loads(pickle.dumps(model)).predict(X)) == {2}


def test_threads_change_nothing() -> None:
    X, y = load_digits(return_X_y=True)
    one, two = (fast(hidden_layer_sizes=(128,), max_iter=4, n_jobs=n).fit(X, y) for n in (1, 2))
    np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        fast(n_jobs=0).fit(X, y)


def test_verbose_says_what_scikit_learn_says(capsys: pytest.CaptureFixture[str]) -> None:
    fast(verbose=True, max_iter=2, early_stopping=True).fit(*IRIS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Iteration 1, loss = ") and lines[1].startswith("Validation score: ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": -1}, "alpha must be finite and >= 0, got -1"),
        ({"solver": "adagrad"}, "solver must be one of 'lbfgs', 'sgd', 'adam', 'adamw', got 'adagrad'"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be >= 1, got 0"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"learning_rate_init": 0.0}, "learning_rate_init must be > 0"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"max_iter": 0}, "max_iter must be >= 1"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"schedule": "cosinus"}, "schedule"),
        ({"early_stopping": True, "validation_fraction": 0.001}, "validation set has 1 of 150 rows"),
    ],
)
def test_bad_parameters_are_refused_before_anything_changes(options: dict[str, Any], text: str) -> None:
    model = fast(**options)
    with pytest.raises(ValueError, match=text):
        model.fit(*IRIS)
    if "early_stopping" not in options:
        assert not hasattr(model, "coefs_") and not hasattr(model, "classes_")


def test_bad_data_is_refused() -> None:
    X, y = IRIS
    huge = X.copy()
    huge[7, 1] = 1e300
    with pytest.raises(hl.NonFiniteError, match=r"X\[7, 1\] is beyond float32"):
        fast().fit(huge, y)
    with pytest.raises(ValueError, match="several columns of classes"):
        fast().fit(X, np.stack([y, y], axis=1))
    with pytest.raises(ValueError, match="Unknown label type"):
        fast().fit(X, X[:, 0])
    with pytest.raises(NotFittedError):
        fast().predict(X)
    with pytest.raises(ValueError, match=r"needs y >= 0, got -1.0 in row 3"):
        hl.MLPRegressor("poisson").fit(X[:5], [1, 2, 3, -1.0, 2])
    with pytest.raises(ValueError, match=r"classes not in self.classes_"):
        fast().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(AttributeError, match="partial_fit"):
        getattr(fast(solver="lbfgs"), "partial_fit")  # noqa: B009
    with pytest.raises(ValueError, match="became infinite or NaN in epoch"):
        hl.MLPRegressor(solver="sgd", learning_rate_init=1e6).fit(X * 100, X[:, 0] * 1e4)


def test_poisson_predicts_means() -> None:
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (500, 2))
    y = rng.poisson(np.exp(1 + X[:, 0]))
    model = hl.MLPRegressor("poisson", (16,), random_state=0, max_iter=200, learning_rate_init=0.01).fit(X, y)
    assert (model.predict(X) > 0).all() and model.out_activation_ == "exp"
    assert np.corrcoef(model.predict(X), np.exp(X[:, 0]))[0, 1] > 0.95


def test_ctrl_c_ends_a_fit_on_what_it_has_learnt() -> None:
    model = fast(max_iter=10**6, n_iter_no_change=np.inf, tol=0.0)

    def press() -> None:
        deadline = time.monotonic() + 60
        while len(getattr(model, "loss_curve_", ())) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.warns(UserWarning, match="interrupted: the model is as trained so far"):
        model.fit(*IRIS)
    thread.join()
    assert model.n_iter_ == len(model.loss_curve_) >= 3
    assert model.predict(IRIS[0]).shape == (150,)
