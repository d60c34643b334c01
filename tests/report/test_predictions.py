# SPDX-License-Identifier: Apache-2.0
"""Confusion and calibration against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop.report.predictions import Predictions, confusion, reliability


def test_reliability_equals_its_definition() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    p = rng.dirichlet([0.5] * 5, 1000).astype(np.float32)
    true = rng.integers(0, 5, 1000)
    found = reliability(true, p)
    top, right = p.max(axis=1).astype(float), p.argmax(axis=1) == true
    expected = 0.0
    for low in np.arange(10) / 10:
        rows = (top >= low) & ((top < low + 0.1) | ((low > 0.85) & (top == 1.0)))
        if rows.any():
            expected += rows.mean() * abs(right[rows].mean() - top[rows].mean())
    assert found.error == pytest.approx(expected, abs=1e-3)
    assert found.rows.sum() == 1000 and found.gap == pytest.approx(top.mean() - right.mean())
    sure = reliability(np.zeros(5, int), np.tile(np.float32([1.0, 0.0]), (5, 1)))
    assert (sure.error, sure.gap) == (0.0, 0.0)


def test_confusion_equals_sklearn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.Generator(np.random.PCG64(0))
    true, predicted = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    expected = metrics.confusion_matrix(true, predicted, labels=range(5))
    assert confusion(true, predicted, 5).tolist() == expected.tolist()


def test_class_names_that_do_not_fit_are_numbers() -> None:
    found = Predictions("x", np.zeros(1, int), np.ones((1, 3), np.float32), class_names=("a", "b"))
    assert found.names() == ["0", "1", "2"]
