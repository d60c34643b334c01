# SPDX-License-Identifier: Apache-2.0
"""Reports as text, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.report.text import class_scores, classification_report, regression_report


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.integers(1, 50), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_class_scores_equal_sklearn(n: int, n_classes: int, seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.Philox(seed))
    true, predicted = random.integers(0, n_classes, (2, n))
    scores = class_scores(true, predicted, n_classes)
    theirs = sklearn.precision_recall_fscore_support(
        true, predicted, labels=range(n_classes), zero_division=0
    )
    for ours, other in zip((scores.precision, scores.recall, scores.f1, scores.support), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-14)
    assert scores.accuracy == pytest.approx(sklearn.accuracy_score(true, predicted))


def test_the_report_reads_like_that_of_sklearn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.Philox(0))
    true, predicted = random.integers(0, 3, (2, 60))
    names = ["ant", "bee", "a longer name"]
    theirs = sklearn.classification_report(true, predicted, target_names=names, digits=3)
    ours = classification_report(true, predicted, names)
    assert ours.split() == theirs.split()


def test_regression_report_in_the_unit_of_the_target() -> None:
    true = np.array([1e6, 1e6 + 2, 1e6 + 4])
    text = regression_report(true, true + np.array([1, -1, 1]))
    assert [line.split() for line in text.splitlines()] == [["RMSE", "1"], ["MAE", "1"], ["R2", "0.625"]]


def test_long_names_are_cut_to_the_width() -> None:
    true = np.array([0, 1, 1])
    names = ["a name of thirty-four characters..", "b"]
    for width, longest in ((100, 30), (60, 19), (20, 12)):
        lines = classification_report(true, true, names, width=width).splitlines()
        assert max(map(len, lines)) == longest + 41
        assert lines[1].split()[0] == "a"
