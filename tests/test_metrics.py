# SPDX-License-Identifier: Apache-2.0
"""Metrics: which are reported, and the numbers that come out of the native sums."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop import metrics
from hotloop.compile.plan import LossSpec, Metric
from hotloop.losses import CallableLoss

CLASSES, VALUES = LossSpec("cross_entropy"), LossSpec("mse")
CALLABLE = CallableLoss(lambda p, t: (p.sum(axis=1), p))


def sums(target: Any, prediction: Any) -> Any:
    """What regression_stats adds up: [rows, then per column (p-t)^2, |p-t|, t, t^2]."""
    t, p = np.atleast_2d(target).astype(float), np.atleast_2d(prediction).astype(float)
    columns = np.stack([((p - t) ** 2).sum(0), np.abs(p - t).sum(0), t.sum(0), (t * t).sum(0)], axis=1)
    return np.concatenate([[len(t)], columns.ravel()])


@pytest.mark.parametrize(
    ("given_", "loss", "y", "names"),
    [
        ("auto", CLASSES, None, ("accuracy",)),
        ("auto", LossSpec("bce_with_logits"), None, ("accuracy",)),
        ("auto", VALUES, None, ("mse", "mae", "r2")),
        ("auto", LossSpec("huber"), None, ("mse", "mae", "r2")),
        ("auto", CALLABLE, np.array([1, 2]), ("accuracy",)),
        ("auto", CALLABLE, np.array([1.0, 2]), ("mse", "mae", "r2")),
        ("r2", VALUES, None, ("r2",)),
        (["r2", "mae", "r2"], VALUES, None, ("r2", "mae")),
        (["auto", "top5_accuracy", "f1_macro"], CLASSES, None, ("accuracy", "top5_accuracy", "f1_macro")),
        ("top3_accuracy", CALLABLE, np.array([1, 2]), ("top3_accuracy",)),
        (["neg_max_error", "auto"], VALUES, None, ("neg_max_error", "mse", "mae", "r2")),
        (None, CLASSES, None, ()),
        ((), CLASSES, None, ()),
    ],
)
def test_resolve(given_: Any, loss: Any, y: Any, names: tuple[str, ...]) -> None:
    assert metrics.resolve(given_, loss, y) == names


@pytest.mark.parametrize(
    ("given_", "loss", "match"),
    [
        ("f1_makro", CLASSES, "unknown metric 'f1_makro'; allowed: auto, accuracy, mse, .* mean f1_macro"),
        ("acuracy", CLASSES, "unknown metric 'acuracy'.*did you mean accuracy or"),
        ("zzz", CLASSES, "get_scorer_names"),
        ("top0_accuracy", CLASSES, "unknown metric 'top0_accuracy'"),
        ("top2_accuracy", LossSpec("bce_with_logits"), "'top2_accuracy' does not fit .*; allowed: accuracy$"),
        ("top2_accuracy", VALUES, "'top2_accuracy' does not fit the loss 'mse'"),
        ("accuracy", VALUES, "'accuracy' does not fit the loss 'mse'; allowed: mse, mae, r2"),
        (["r2"], CLASSES, "'r2' does not fit"),
    ],
)
def test_unfit_names(given_: Any, loss: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        metrics.resolve(given_, loss)


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(TypeError, match="metrics are names, got 3"):
        metrics.resolve([3], CLASSES)  # type: ignore[list-item]


def test_top_k_needs_more_classes() -> None:
    metrics.check_top_k(("accuracy", "top2_accuracy", "top1_accuracy"), 3)
    for name in ("top3_accuracy", "top10_accuracy"):
        with pytest.raises(ValueError, match=f"'{name}' of 3 classes"):
            metrics.check_top_k((name,), 3)


def test_kinds() -> None:
    assert metrics.kinds(("accuracy", "top3_accuracy", "top5_accuracy")) == (
        "accuracy",
        "top3_accuracy",
        "top5_accuracy",
    )
    assert metrics.kinds(("mse", "mae", "r2")) == ("regression",)
    assert metrics.kinds(("accuracy",)) == ("accuracy",)
    assert metrics.kinds(()) == ()


def test_finalize_reads_each_block_at_its_offset() -> None:
    plan = [
        Metric("loss", "loss", 0, 2),
        Metric("batch_loss", "batch_loss", 2, 1),
        Metric("accuracy", "accuracy", 3, 2),
    ]
    assert metrics.finalize(plan, np.array([6.0, 4.0, 99.0, 3.0, 4.0])) == {"loss": 1.5, "accuracy": 0.75}


def test_finalize_picks_and_orders_names() -> None:
    plan = [Metric("loss", "loss", 0, 2), Metric("regression", "regression", 2, 5)]
    totals = np.concatenate([[1.0, 1.0], sums([[1.0], [2.0]], [[1.0], [4.0]])])
    assert metrics.finalize(plan, totals, ("mae", "mse")) == {"loss": 1.0, "mae": 1.0, "mse": 2.0}


def test_nothing_seen_is_nan() -> None:
    plan = [Metric("loss", "loss", 0, 2), Metric("regression", "regression", 2, 5)]
    assert all(math.isnan(value) for value in metrics.finalize(plan, np.zeros(7)).values())


def test_r2_of_one_row_is_nan() -> None:
    result = metrics.regression(sums([[1.0]], [[2.0]]))
    assert math.isnan(result["r2"])
    assert result["mse"] == 1.0


@settings(deadline=None)  # the first example imports scikit-learn
@given(
    st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, -3e3]),
    st.sampled_from(["random", "constant", "perfect", "constant and perfect"]),
)  # fmt: skip
def test_regression_equals_sklearn(rows: int, columns: int, seed: int, shift: float, case: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.Philox(seed))
    target = (random.normal(size=(rows, columns)) + shift).astype(np.float32)
    prediction = (target + random.normal(size=target.shape)).astype(np.float32)
    if case.startswith("constant"):
        target[:, 0] = 0.1 + shift
    if case.endswith("perfect"):
        prediction[:, 0] = target[:, 0]
    result = metrics.regression(sums(target, prediction))
    t, p = target.astype(float), prediction.astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert result["mse"] == pytest.approx(sklearn.mean_squared_error(t, p), rel=1e-12)
        assert result["mae"] == pytest.approx(sklearn.mean_absolute_error(t, p), rel=1e-12)
        assert result["r2"] == pytest.approx(sklearn.r2_score(t, p), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("rows", [3, 1000, 100_000])
@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -7.3e-5, 0.0])
def test_a_constant_target_scores_0_or_1_in_spite_of_rounding(rows: int, value: float) -> None:
    target = np.full((rows, 1), np.float32(value))
    assert metrics.regression(sums(target, target))["r2"] == 1.0
    assert metrics.regression(sums(target, target + 1))["r2"] == 0.0
