# SPDX-License-Identifier: Apache-2.0
"""Cross-validation with the folds side by side: one native loop per processor, one thread each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import _num_samples

from hotloop.runtime.parallel import run_all
from hotloop.sklearn.base import BaseMLP


def cross_validate(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    cv: Any = 5,
    scoring: Any = None,
    groups: Any = None,
    params: Mapping[str, Any] | None = None,
    n_jobs: int | None = None,
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_indices: bool = False,
    error_score: Any = np.nan,
) -> dict[str, Any]:
    """``sklearn.model_selection.cross_validate``, with the folds in threads of this process.

    Each fold trains a clone in a native loop that releases the GIL, one fold per processor and one thread per
    fold; the numbers are those of a serial run, bit for bit. X is not copied but for the rows of the folds in
    hand: a dense X for one of our estimators is turned into float32 once, and each fold takes its rows of that.

    Args:
        estimator: any scikit-learn estimator; ours are the ones that run side by side.
        X, y, groups: as there; ``params`` are passed to ``fit``, those of n entries by row.
        cv: folds, a splitter, or an iterable of (train, test).
        scoring: None (the estimator's score), a name, a callable, or several of them.
        n_jobs: folds at the same time; None is one per processor.
        return_train_score, return_estimator, return_indices: what else to return.
        error_score: the score of a fold that fails, which warns; "raise" raises.

    Returns:
        "fit_time" and "score_time" (seconds) and "test_score", or "test_<name>" for several, float64 (folds,);
        with "train_score", "estimator" and "indices" where asked for.

    >>> from sklearn.datasets import load_iris
    >>> from hotloop.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> found = cross_validate(MLPClassifier((8,), max_iter=30, tol=0.1, random_state=0), X, y, cv=3)
    >>> found["test_score"].shape
    (3,)
    """
    X, y, groups = indexable(X, y, groups)
    splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y, groups))
    scorer = check_scoring(estimator, scoring=scoring)
    if isinstance(estimator, BaseMLP) and isinstance(X, np.ndarray) and X.dtype == np.float64:
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(X, np.float32)
        if np.isfinite(single).all():  # else let fit say what is wrong
            X = single
    fold = _Fold(X, y, scorer, dict(params or {}), return_train_score, error_score)
    # Cloned here and in order, as a serial run does: a RandomState is shared by no two folds.
    tasks = [partial(fold.run, clone(estimator), train, test) for train, test in splits]
    results = run_all(tasks, n_jobs)
    out: dict[str, Any] = {
        key: np.array([r[key] for r in results]) for key in results[0] if key != "estimator"
    }
    if return_estimator:
        out["estimator"] = [r["estimator"] for r in results]
    if return_indices:
        out["indices"] = dict(zip(("train", "test"), zip(*splits, strict=True), strict=True))
    return out


class _Fold:
    """What all folds share."""

    def __init__(
        self, X: Any, y: Any, scorer: Callable[..., Any], params: dict[str, Any], train_score: bool,
        error_score: Any,
    ) -> None:  # fmt: skip
        self.X, self.y, self.scorer, self.params = X, y, scorer, params
        self.train_score, self.error_score = train_score, error_score
        self.scores: dict[str, Any] | None = None

    def run(self, estimator: Any, train: Any, test: Any) -> dict[str, Any]:
        """Fit on the rows ``train`` and score on ``test``."""
        begin = time.perf_counter()
        rows, held = self._rows(train), self._rows(test)
        n = _num_samples(self.X)
        params = {
            name: _safe_indexing(value, train) if _is_by_row(value, n) else value
            for name, value in self.params.items()
        }
        failed = False
        try:
            estimator.fit(*rows, **params)
        except Exception as error:
            if self.error_score == "raise":
                raise
            warnings.warn(
                f"[cross_validate] a fold did not fit, its score is {self.error_score}: {error!r}",
                FitFailedWarning,
                stacklevel=2,
            )
            failed = True
        fitted = time.perf_counter()
        out: dict[str, Any] = self._score("test", estimator, held, failed)
        scored = time.perf_counter()
        if self.train_score:
            out |= self._score("train", estimator, rows, failed)
        return {"fit_time": fitted - begin, "score_time": scored - fitted, **out, "estimator": estimator}

    def _rows(self, rows: Any) -> tuple[Any, ...]:
        X = _safe_indexing(self.X, rows)
        return (X,) if self.y is None else (X, _safe_indexing(self.y, rows))

    def _score(self, part: str, estimator: Any, data: tuple[Any, ...], failed: bool) -> dict[str, Any]:
        if failed:
            names = getattr(self.scorer, "_scorers", None)
            keys = [f"{part}_score"] if names is None else [f"{part}_{name}" for name in names]
            return dict.fromkeys(keys, self.error_score)
        found = self.scorer(estimator, *data)
        if isinstance(found, dict):
            return {f"{part}_{name}": value for name, value in found.items()}
        return {f"{part}_score": float(found)}


def _is_by_row(value: Any, n: int) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, dict)) and len(value) == n
