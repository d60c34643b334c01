# SPDX-License-Identifier: Apache-2.0
"""The estimators in scikit-learn's own tools: searches, pipelines, routing, callbacks, joblib."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hotloop as hl
from hotloop.compile import compile_plan

IRIS = load_iris(return_X_y=True)
GRID = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(8,), (12,)]}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def fast(**options: Any) -> Any:
    return hl.MLPClassifier(**({"hidden_layer_sizes": (12,), "max_iter": 20, "random_state": 0} | options))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_in_parallel_equals_a_serial_one(backend: str) -> None:
    serial = GridSearchCV(fast(), GRID, cv=3).fit(*IRIS)
    with joblib.parallel_config(backend=backend):
        found = GridSearchCV(fast(), GRID, cv=3, n_jobs=2).fit(*IRIS)
    assert found.best_params_ == serial.best_params_
    for key in serial.cv_results_:
        if key.endswith("test_score"):
            np.testing.assert_array_equal(found.cv_results_[key], serial.cv_results_[key])


def _threads_of_a_fit() -> tuple[int | None, int]:
    """What a fit here was given, and what it may use at most."""
    model = fast()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(*IRIS)
    return model._network.session.threads, hl.get_num_threads()


def test_workers_of_joblib_do_not_oversubscribe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "HOTLOOP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    tasks = [joblib.delayed(_threads_of_a_fit)() for _ in range(4)]
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        # a process of its own: the count of all its threads is joblib's
        assert {most for _, most in joblib.Parallel()(tasks)} == {1}
    with joblib.parallel_config("threading", n_jobs=2):
        assert {asked for asked, _ in joblib.Parallel()(tasks)} == {1}
    assert _threads_of_a_fit()[0] is None  # here it is free


def test_clones_and_refits_compile_nothing() -> None:
    X, y = IRIS
    model = fast(hidden_layer_sizes=(13, 5), early_stopping=True, batch_size=32).fit(X, y)
    model.predict(X)
    before = compile_plan.cache_info().misses
    model.fit(X, y)
    clone(model).set_params(alpha=1.0, learning_rate_init=0.1, random_state=5).fit(X, y).predict(X)
    clone(model).fit(X[::-1], y[::-1])
    assert compile_plan.cache_info().misses == before


def test_metadata_is_routed() -> None:
    X, y = IRIS
    weight = np.linspace(0.1, 2, 150)
    with sklearn.config_context(enable_metadata_routing=True):
        model = (
            fast()
            .set_fit_request(sample_weight=True, X_val=True, y_val=True)
            .set_score_request(sample_weight=False)
        )
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        pipe.fit(X, y, sample_weight=weight, X_val=X[:30], y_val=y[:30])
    inner = pipe[-1]
    assert len(inner.validation_scores_) == inner.n_iter_
    plain = fast().fit(StandardScaler().fit_transform(X), y, weight)
    np.testing.assert_array_equal(inner.coefs_[0], plain.coefs_[0])


def test_pipelines_with_frames_as_output() -> None:
    pytest.importorskip("pandas")
    X, y = IRIS
    pipe = (
        make_pipeline(StandardScaler(), fast(max_iter=200, learning_rate_init=0.02))
        .set_output(transform="pandas")
        .fit(X, y)
    )
    assert list(pipe[-1].feature_names_in_) == ["x0", "x1", "x2", "x3"]
    assert pipe.score(X, y) > 0.9


def test_ensembles_and_inspection_predict_from_several_threads() -> None:
    X, y = IRIS
    with joblib.parallel_config("threading", n_jobs=4):
        bag = BaggingClassifier(fast(max_iter=200, learning_rate_init=0.02), 5, random_state=0, n_jobs=4).fit(
            X, y
        )
        assert bag.score(X, y) > 0.9
        found = permutation_importance(
            fast(max_iter=60).fit(X, y), X, y, n_repeats=8, random_state=0, n_jobs=4
        )
    serial = permutation_importance(fast(max_iter=60).fit(X, y), X, y, n_repeats=8, random_state=0)
    np.testing.assert_array_equal(found.importances, serial.importances)
    assert cross_val_predict(fast(), X, y, cv=3, method="predict_proba").shape == (150, 3)


def test_joblib_stores_and_hashes_estimators() -> None:
    X, y = load_digits(return_X_y=True)
    model = fast().fit(X, y)
    file = io.BytesIO()
    joblib.dump(model, file)
    size = file.tell()
    assert size < 40_000  # weights, moments and names; no native memory
    file.seek(0)
    np.testing.assert_array_equal(joblib.load(file).predict_proba(X), model.predict_proba(X))


def test_callbacks_see_every_epoch_and_may_stop() -> None:
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    class Watch:
        def __init__(self, stop_at: int) -> None:
            self.stop_at, self.calls, self.scores = stop_at, [], []

        def setup(self, estimator: Any, context: Any) -> None:
            self.calls.append("setup")

        def teardown(self, estimator: Any, context: Any) -> None:
            self.calls.append("teardown")

        def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
            self.calls.append(f"begin {context.task_name}")

        def on_fit_task_end(
            self, estimator: Any, context: Any, *, X: Any = None, y: Any = None, fitted_estimator: Any = None
        ) -> bool:
            self.calls.append(f"end {context.task_name}")
            if context.task_name == "fit":
                return False
            self.scores.append((fitted_estimator.score(X, y), estimator.loss_))
            return bool(estimator.n_iter_ == self.stop_at)

    X, y = IRIS
    watch = Watch(stop_at=7)
    model = fast().set_callbacks(watch).fit(X, y)
    assert model.n_iter_ == len(watch.scores) == 7
    assert watch.calls[:3] == ["setup", "begin fit", "begin iteration"]
    assert watch.calls[-3:] == ["end iteration", "end fit", "teardown"]
    assert watch.scores[-1] == (model.score(X, y), model.loss_)
    assert [loss for _, loss in watch.scores] == model.loss_curve_
    np.testing.assert_array_equal(model.coefs_[0], fast(max_iter=7).fit(X, y).coefs_[0])

    monitor = ScoringMonitor(scoring="accuracy")
    fast(solver="lbfgs", max_iter=5).set_callbacks(monitor).fit(X, y)
    searched = GridSearchCV(fast().set_callbacks(Watch(stop_at=3)), {"alpha": [0.1, 1.0]}, cv=3).fit(X, y)
    assert searched.best_estimator_.n_iter_ <= 3
