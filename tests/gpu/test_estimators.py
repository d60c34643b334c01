# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's estimators on a device: fits near the CPU's, folds that share one copy of X and its bits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests.gpu.kernel_harness import DEVICES

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from hotloop.sklearn import cross_validation
from hotloop.sklearn.table import Table

RNG = np.random.default_rng(2)
X = RNG.standard_normal((150, 9))
Y = (X[:, :3].sum(axis=1) > 0).astype(int) + (X[:, 3] > 1)
WEIGHT = RNG.random(150)


@pytest.fixture(params=DEVICES or [pytest.param("none", marks=pytest.mark.skip("neither emulator nor GPU"))])
def kind(request: pytest.FixtureRequest) -> str:
    """The device that an estimator is asked for."""
    found: str = request.param
    return found


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def network(device: str, **options: Any) -> Any:
    given = {"hidden_layer_sizes": (12,), "max_iter": 4, "random_state": 0, "batch_size": 40} | options
    return hl.MLPClassifier(**given, device=device, dtype="float32")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "sgd"},
        {"solver": "lbfgs"},
        {"early_stopping": True},
        {"solver": "adamw", "dropout": 0.1},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "adam",
)
def test_a_fit_is_near_the_cpus(kind: str, options: dict[str, Any]) -> None:
    there, here = (network(d, **options).fit(X, Y, sample_weight=WEIGHT) for d in (kind, "cpu"))
    assert there._network.session.kind == kind
    tolerance = 1e-2 if options.get("solver") == "lbfgs" else 1e-4  # its line search amplifies rounding
    np.testing.assert_allclose(there.loss_, here.loss_, rtol=tolerance)
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), atol=tolerance)
    if options.get("early_stopping"):
        assert len(there.validation_scores_) == len(here.validation_scores_)


def test_a_regressor_and_partial_fits(kind: str) -> None:
    targets = np.stack([X[:, 0], X[:, 1] ** 2], axis=1)
    there, here = (
        hl.MLPRegressor(hidden_layer_sizes=(8,), random_state=0, device=d, dtype="float32")
        for d in (kind, "cpu")
    )
    for _ in range(3):
        there.partial_fit(X, targets)
        here.partial_fit(X, targets)
    np.testing.assert_allclose(there.predict(X), here.predict(X), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"early_stopping": True, "class_weight": "balanced"}], ids=["", "stops"]
)
def test_folds_share_one_copy_and_end_on_the_bits_of_copies(
    kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[Any] = []
    monkeypatch.setattr(cross_validation, "Table", lambda *a: tables.append(Table(*a)) or tables[-1])
    model = network(kind, **options)
    found = hl.cross_validate(
        model, X, Y, cv=KFold(3, shuffle=True, random_state=0), params={"sample_weight": WEIGHT},
        return_estimator=True, return_indices=True, n_jobs=2,
    )  # fmt: skip
    (shared,) = tables[0].features(np.float32, np.arange(1)).copies.values()
    assert shared.resident
    for ours, train, test, score in zip(
        found["estimator"], *found["indices"].values(), found["test_score"], strict=True
    ):
        alone = clone(model).fit(X[train], Y[train], sample_weight=WEIGHT[train])
        for a, b in zip((*ours.coefs_, *ours.intercepts_), (*alone.coefs_, *alone.intercepts_), strict=True):
            np.testing.assert_array_equal(a, b)
        assert ours.loss_curve_ == alone.loss_curve_
        assert score == alone.score(X[test], Y[test])
