# SPDX-License-Identifier: Apache-2.0
"""Folds side by side give the numbers of folds in a row."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import model_selection
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hotloop as hl
from hotloop.runtime.parallel import in_worker, run_all


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def network(**options: Any) -> Any:
    return hl.MLPClassifier(**({"hidden_layer_sizes": (16,), "max_iter": 15, "random_state": 0} | options))


@pytest.mark.parametrize("load", [load_iris, load_digits])
def test_scores_are_bit_for_bit_those_of_a_serial_run(load: Any) -> None:
    X, y = load(return_X_y=True)
    scoring = ["accuracy", "neg_log_loss"]
    expected = model_selection.cross_validate(network(), X, y, scoring=scoring, return_train_score=True)
    for n_jobs in (1, 2, 5, None):
        found = hl.cross_validate(network(), X, y, scoring=scoring, return_train_score=True, n_jobs=n_jobs)
        assert found.keys() == expected.keys()
        for key in ("test_accuracy", "test_neg_log_loss", "train_neg_log_loss"):
            np.testing.assert_array_equal(found[key], expected[key])
        assert (found["fit_time"] > 0).all() and (found["score_time"] > 0).all()


def test_estimators_and_rows_are_returned() -> None:
    X, y = load_iris(return_X_y=True)
    model = network(random_state=np.random.RandomState(3))
    found = hl.cross_validate(model, X, y, cv=3, return_estimator=True, return_indices=True, n_jobs=2)
    serial = model_selection.cross_validate(
        network(random_state=np.random.RandomState(3)), X, y, cv=3, return_estimator=True
    )
    for a, b in zip(found["estimator"], serial["estimator"]):
        np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
    for model, test, score in zip(found["estimator"], found["indices"]["test"], found["test_score"]):
        assert model.score(X[test], y[test]) == score
    assert not hasattr(network(), "coefs_")


def test_pipelines_weights_groups_and_other_estimators() -> None:
    X, y = load_iris(return_X_y=True)
    weight = np.linspace(0.1, 1, 150)
    for model, params in (
        (make_pipeline(StandardScaler(), network()), None),
        (network(), {"sample_weight": weight}),
        (LogisticRegression(), {"sample_weight": weight}),
    ):
        cv = ShuffleSplit(4, random_state=0)
        found = hl.cross_validate(model, X, y, cv=cv, params=params, n_jobs=2)
        expected = model_selection.cross_validate(model, X, y, cv=cv, params=params)
        np.testing.assert_array_equal(found["test_score"], expected["test_score"])
    groups = np.arange(150) % 6
    found = hl.cross_validate(network(), X, y, cv=GroupKFold(3), groups=groups)
    expected = model_selection.cross_validate(network(), X, y, cv=GroupKFold(3), groups=groups)
    np.testing.assert_array_equal(found["test_score"], expected["test_score"])
    X, y = load_diabetes(return_X_y=True)
    found = hl.cross_validate(hl.MLPRegressor(max_iter=20, random_state=0), X, y, scoring="r2")
    assert found["test_score"].shape == (5,)


def test_a_fold_that_fails() -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.warns(FitFailedWarning, match="alpha must be"):
        found = hl.cross_validate(network(alpha=-1), X, y, scoring=["accuracy", "f1_macro"])
    assert np.isnan(found["test_f1_macro"]).all()
    with pytest.raises(ValueError, match="alpha must be"):
        hl.cross_validate(network(alpha=-1), X, y, error_score="raise", n_jobs=2)


def test_folds_run_at_the_same_time_with_one_thread_each() -> None:
    meet = threading.Barrier(2, timeout=60)

    def task() -> tuple[bool, int | None]:
        meet.wait()  # nobody gets here before the other one has begun
        X, y = load_iris(return_X_y=True)
        return in_worker(), network(max_iter=2).fit(X, y)._network.session.threads

    assert run_all([task, task], workers=2) == [(True, 1), (True, 1)]
    assert not in_worker()


def test_an_error_stops_the_fits_beside_it() -> None:
    X, y = load_digits(return_X_y=True)
    began, seen = threading.Event(), []

    def endless() -> None:
        began.set()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            network(max_iter=10**6, n_iter_no_change=np.inf).fit(X, y)
        seen.extend(str(w.message) for w in caught)

    def fails() -> None:
        assert began.wait(60)
        raise KeyError("this one")

    with pytest.raises(KeyError, match="this one"):
        run_all([endless, fails, lambda: seen.append("never begun")], workers=2)
    assert seen == ["[fit] interrupted: the model is as trained so far"]


def test_one_worker_runs_in_the_callers_thread() -> None:
    here = threading.get_ident()
    assert run_all([threading.get_ident] * 3, workers=1) == [here] * 3
    with pytest.raises(ValueError, match="workers must be >= 1"):
        run_all([], workers=0)
