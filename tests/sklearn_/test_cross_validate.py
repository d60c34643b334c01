# SPDX-License-Identifier: Apache-2.0
"""Folds side by side give the numbers of folds in a row."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
import scipy.sparse
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hotloop as hl
from hotloop.runtime.parallel import in_worker, run_all
from hotloop.sklearn import cross_validation
from hotloop.sklearn.table import Table


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


SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (network(), {}),
    "weights": (network(class_weight="balanced"), {"weight": True}),
    "early stopping": (network(early_stopping=True, batch_size=33), {"weight": True}),
    "float64": (network(dtype="float64", max_iter=3), {}),
    "lbfgs": (network(solver="lbfgs"), {"weight": True}),
    "sparse": (network(), {"sparse": True}),
    "two threads": (network(n_jobs=2), {}),
}


@pytest.mark.parametrize("case", SHARED)
def test_folds_gather_what_copies_hold(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that reads the shared X by number ends on the bits of a fit on its own copy, and predicts alike."""
    model, how = SHARED[case]
    X, y = load_digits(return_X_y=True)
    X, y = X[:500], y[:500]
    weight = np.random.default_rng(0).random(500) if "weight" in how else None
    given = scipy.sparse.csr_matrix(X) if "sparse" in how else X
    params = {} if weight is None else {"sample_weight": weight}
    tables: list[Any] = []
    monkeypatch.setattr(cross_validation, "Table", lambda *a: tables.append(Table(*a)) or tables[-1])
    found = hl.cross_validate(
        model, given, y, cv=ShuffleSplit(3, test_size=0.3, random_state=0), params=params, n_jobs=2,
        return_estimator=True, return_indices=True,
    )  # fmt: skip
    assert len(tables) == 1
    for ours, train, test, score in zip(
        found["estimator"], *found["indices"].values(), found["test_score"], strict=True
    ):
        own = {name: value[train] for name, value in params.items()}
        alone = clone(model).set_params(n_jobs=1).fit(given[train], y[train], **own)
        for a, b in zip((*ours.coefs_, *ours.intercepts_), (*alone.coefs_, *alone.intercepts_), strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours.loss_curve_ == alone.loss_curve_ if model.solver != "lbfgs" else ours.loss_ == alone.loss_
        assert score == alone.score(given[test], y[test])
        part = tables[0].rows(test)
        np.testing.assert_array_equal(ours.predict_proba(part), alone.predict_proba(given[test]))
        assert len(part) == len(test) and part.shape == X[test].shape
        np.testing.assert_array_equal(np.asarray(part), X[test])


def several(**options: Any) -> Any:
    given = {"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0} | options
    return hl.MLPRegressor(**given)


@pytest.mark.parametrize(
    "model", [network(early_stopping=True), several(), several(early_stopping=True), several(loss="poisson")],
    ids=["labels", "numbers", "stops", "poisson"],
)  # fmt: skip
def test_several_outputs_are_gathered_too(model: Any) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    targets = np.stack([y % 2, y > 4, y % 3 == 0], axis=1).astype(int)
    found = hl.cross_validate(model, X, targets, cv=3, return_estimator=True, return_indices=True)
    for ours, train, test, score in zip(
        found["estimator"], *found["indices"].values(), found["test_score"], strict=True
    ):
        alone = clone(model).fit(X[train], targets[train])
        assert ours.loss_curve_ == alone.loss_curve_
        np.testing.assert_array_equal(ours.coefs_[0], alone.coefs_[0])
        assert ours.validation_scores_ == alone.validation_scores_
        assert score == alone.score(X[test], targets[test])


def test_targets_are_checked_once_for_all_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_digits(return_X_y=True)
    calls: list[int] = []
    check = hl.MLPClassifier._check_data
    monkeypatch.setattr(
        hl.MLPClassifier, "_check_data", lambda self, X, y, **how: calls.append(len(y)) or check(self, X, y, **how)
    )  # fmt: skip
    names = np.array(list("abcdefghij"))[y]
    found = hl.cross_validate(network(max_iter=2), X, names, cv=4, return_estimator=True)
    assert calls == [len(y)]
    assert [m.classes_.tolist() for m in found["estimator"]] == [list("abcdefghij")] * 4


def test_a_fold_without_some_class_has_classes_of_its_own() -> None:
    X, y = load_iris(return_X_y=True)  # in the order of the classes
    found = hl.cross_validate(network(), X, y, cv=KFold(3), return_estimator=True)
    assert [m.classes_.tolist() for m in found["estimator"]] == [[1, 2], [0, 2], [0, 1]]
    assert (found["test_score"] == 0).all()


def test_columns_are_learnt_once_and_known_to_every_fold() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = load_diabetes(return_X_y=True)
    frame = pandas.DataFrame(X, columns=[f"c{i}" for i in range(10)])
    targets = np.stack([y, -y], axis=1)
    model = hl.MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    found = hl.cross_validate(model, frame, targets, cv=3, return_estimator=True, return_indices=True)
    for fold, train, test in zip(found["estimator"], *found["indices"].values(), strict=True):
        assert fold.feature_names_in_.tolist() == list(frame) and fold.n_features_in_ == 10
        alone = clone(model).fit(frame.iloc[train], targets[train])
        np.testing.assert_array_equal(fold.predict(frame.iloc[test]), alone.predict(frame.iloc[test]))
        with pytest.raises(ValueError, match="feature names"):
            fold.predict(frame[["c0"]])


def test_functions_and_callbacks_get_rows_of_x_itself() -> None:
    X, y = load_iris(return_X_y=True)
    seen = []

    def score(model: Any, X: Any, y: Any) -> float:
        seen.append(type(X))
        return float(model.score(X, y))

    found = hl.cross_validate(network(), X, y, cv=3, scoring=score, n_jobs=1)
    assert seen == [np.ndarray] * 3
    named = hl.cross_validate(network(), X, y, cv=3, scoring=["accuracy", "roc_auc_ovr"])
    np.testing.assert_array_equal(found["test_score"], named["test_accuracy"])


def test_bad_values_are_found_by_the_folds_that_have_them() -> None:
    X, y = load_iris(return_X_y=True)
    X[0, 0] = np.nan
    cv = KFold(3, shuffle=True, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = hl.cross_validate(network(), X, y, cv=cv, scoring="accuracy", n_jobs=1)
    said = [str(w.message) for w in caught if "[cross_validate]" in str(w.message)]
    assert [("did not fit" in text, "NaN" in text) for text in said].count((True, True)) == 2
    assert sum("could not be scored" in text for text in said) == 1  # its rows to train on are sound
    assert np.isnan(found["test_score"]).all()
    with pytest.raises(ValueError, match="NaN"):
        hl.cross_validate(network(), X, y, cv=cv, error_score="raise", n_jobs=1)


def test_folds_take_no_more_memory_than_their_numbers() -> None:
    """Eight folds of a float32 X of 16 MB: beside it, no more than a part of what one copy would take."""
    X = np.random.default_rng(0).standard_normal((20_000, 200)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    model = network(max_iter=1, tol=1.0, hidden_layer_sizes=(4,))
    hl.cross_validate(model, X[:200], y[:200], cv=2)  # imports, plans
    peaks = []
    for folds in (2, 8):
        tracemalloc.start()
        try:
            hl.cross_validate(model, X, y, cv=folds, n_jobs=2, return_train_score=True)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    numbers = X.shape[0] * 8 * 8  # of all eight folds, which scikit-learn's splits hold anyway
    assert peaks[0] < X.nbytes / 3
    assert peaks[1] - peaks[0] < numbers * 1.5
