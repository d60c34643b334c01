# SPDX-License-Identifier: Apache-2.0
"""Cross-validation with the folds side by side: one native loop per processor, one thread each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import _num_samples

from hotloop.runtime.parallel import run_all
from hotloop.sklearn.classifier import MLPClassifier
from hotloop.sklearn.regressor import MLPRegressor
from hotloop.sklearn.table import Table

Array = NDArray[Any]


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
    fold; the numbers are those of a serial run, bit for bit. For one of our estimators X and y are checked and
    converted once, X not at all if it is float32; folds gather their rows from that one array, in fits and in
    predictions, and so does a GPU. What looks at X itself gets copies: pipelines, other estimators, scorers that are plain
    functions, callbacks.

    Args:
        estimator: any scikit-learn estimator; ours are the ones that run side by side.
        X, y, groups: as there; ``params`` are passed to ``fit``, those of n entries by row.
        cv: folds, a splitter, or an iterable of (train, test).
        scoring: None (the estimator's score), a name, a callable, or several of them.
        n_jobs: folds at the same time; None is one per processor.
        return_train_score, return_estimator, return_indices: what else to return.
        error_score: the score of a fold that fails to fit or to be scored, which warns; "raise" raises.

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
    fold = _Fold(X, y, scorer, dict(params or {}), return_train_score, error_score)
    fold.share(estimator, [train for train, _ in splits], by_name=_is_named(scoring))
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
        #: Where fits, and where scorers read X, if that is not X itself.
        self.table: Table | None = None
        self.scored: Table | None = None

    def share(self, estimator: Any, trains: Sequence[Any], *, by_name: bool) -> None:
        """Have one X for all folds, where the estimator can gather from it; where it cannot be converted as a whole,
        each fold's `fit` says what is wrong. Scorers that have a name hand X to the estimator, of others nobody knows.
        """
        if type(estimator) not in (MLPClassifier, MLPRegressor) or hasattr(estimator, "_skl_callbacks"):
            return
        with suppress(ValueError, TypeError):
            reals = {estimator._real(len(_numbers(train)), incremental=False) for train in trains}
            self.table = Table(estimator, self.X, self.y, reals)
            self.scored = self.table if by_name else None

    def run(self, estimator: Any, train: Any, test: Any) -> dict[str, Any]:
        """Fit on the rows ``train`` and score on ``test``."""
        begin = time.perf_counter()
        train, test = _numbers(train), _numbers(test)
        n = _num_samples(self.X)
        params = {
            name: _safe_indexing(value, train) if _is_by_row(value, n) else value
            for name, value in self.params.items()
        }
        failed = False
        try:
            estimator.fit(*self._to_fit(train), **params)
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
        out: dict[str, Any] = self._score("test", estimator, self._rows(test, self.scored), failed)
        scored = time.perf_counter()
        if self.train_score:
            out |= self._score("train", estimator, self._rows(train, self.scored), failed)
        return {"fit_time": fitted - begin, "score_time": scored - fitted, **out, "estimator": estimator}

    def _to_fit(self, rows: Array) -> tuple[Any, ...]:
        if self.table is None:
            return self._rows(rows, None)
        targets = self.table.targets(rows)
        return self.table.rows(rows), _safe_indexing(self.y, rows) if targets is None else targets

    def _rows(self, rows: Any, table: Table | None) -> tuple[Any, ...]:
        X = _safe_indexing(self.X, rows) if table is None else table.rows(rows)
        return (X,) if self.y is None else (X, _safe_indexing(self.y, rows))

    def _score(self, part: str, estimator: Any, data: tuple[Any, ...], failed: bool) -> dict[str, Any]:
        if not failed:
            try:
                found = self.scorer(estimator, *data)
                if isinstance(found, dict):
                    return {f"{part}_{name}": value for name, value in found.items()}
                return {f"{part}_score": float(found)}
            except Exception as error:
                if self.error_score == "raise":
                    raise
                warnings.warn(
                    f"[cross_validate] a fold could not be scored, its score is {self.error_score}: {error!r}",
                    UserWarning,
                    stacklevel=2,
                )
        names = getattr(self.scorer, "_scorers", None)
        keys = [f"{part}_score"] if names is None else [f"{part}_{name}" for name in names]
        return dict.fromkeys(keys, self.error_score)


def _is_named(scoring: Any) -> bool:
    """Whether all scorers are scikit-learn's own, or the estimator's `score`."""
    several = scoring.values() if isinstance(scoring, Mapping) else scoring
    some = [scoring] if scoring is None or isinstance(scoring, str) or callable(scoring) else list(several)
    return all(one is None or isinstance(one, str) for one in some)


def _numbers(rows: Any) -> Array:
    """Row numbers (k,), of these or of the truth values that a splitter gave."""
    chosen: Array = np.asarray(rows)
    return np.flatnonzero(chosen) if chosen.dtype == bool else chosen


def _is_by_row(value: Any, n: int) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, dict)) and len(value) == n
