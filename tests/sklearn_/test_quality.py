# SPDX-License-Identifier: Apache-2.0
"""Cross-validated scores within one standard error of scikit-learn's at the same settings; all of them if deep."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
from bench.estimator_quality import DATA, SOLVERS, distance, is_as_good, scores

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
QUICK = [("iris", "adam"), ("wine", "sgd"), ("wine", "adam, early stopping"), ("breast_cancer", "lbfgs")]


@pytest.mark.parametrize(("data", "solver"), QUICK)
def test_some_scores_are_as_good_as_scikit_learns(data: str, solver: str) -> None:
    assert is_as_good(solver, distance(scores(data, SOLVERS[solver], folds=5)))


@pytest.mark.deep
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("data", DATA)
def test_all_scores_are_as_good_as_scikit_learns(data: str, solver: str) -> None:
    assert is_as_good(solver, distance(scores(data, SOLVERS[solver])))
