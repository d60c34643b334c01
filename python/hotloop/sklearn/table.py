# SPDX-License-Identifier: Apache-2.0
"""One data set for the fits and predictions of many estimators: checked and converted once, never copied.

What an estimator is given in place of X[rows] and y[rows] are `TableRows` and `TargetRows`: their numbers. The native
loop gathers the rows from the one array; whoever else asks for values, such as a scorer that looks at X, gets a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from hotloop.data.lazy import LazyRows

Array = NDArray[Any]

#: What a fit learns of X, and of X and y, before it trains.
_OF_X = ("n_features_in_", "feature_names_in_")
_LEARNT = (*_OF_X, "classes_", "_multilabel")


class Table:
    """X (n, features) and y as ``estimator`` takes them, for fits in the dtypes ``reals``. Raises what its `fit` would.

    >>> from sklearn.datasets import load_iris
    >>> from hotloop.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> table = Table(MLPClassifier(), X, y, {np.dtype(np.float32)})
    >>> table.rows(np.array([3, 1])).shape, table.targets(np.arange(50)) is None  # rows of one class alone
    ((2, 4), True)
    """

    def __init__(self, estimator: Any, X: Any, y: Any, reals: set[Any]) -> None:
        learner = clone(estimator)
        features, targets = learner._check_data(X, y, reset=True, classes="new")
        self.X, self.y, self._shape = X, y, targets.shape
        self.learnt = {name: getattr(learner, name) for name in _LEARNT if hasattr(learner, name)}
        self._features = {r: LazyRows(learner._as_real("X", features, r), r) for r in reals}
        self._targets = {r: _parted(learner._targets(targets, r)) for r in reals}
        self._classes: Array | None = None  # of each row, by number
        if "classes_" in self.learnt and not learner._multilabel:
            self._classes = np.searchsorted(learner.classes_, targets)

    def rows(self, numbers: Array) -> TableRows:
        """X of the rows with these numbers (k,)."""
        return TableRows(self, numbers)

    def targets(self, numbers: Array) -> TargetRows | None:
        """y of these rows; None where they lack a class, because a fit on them has classes of its own."""
        if self._classes is not None:
            counts = np.bincount(self._classes[numbers], minlength=len(self.learnt["classes_"]))
            if not counts.all():
                return None
        return TargetRows(self, numbers, (len(numbers), *self._shape[1:]))

    def features(self, dtype: DTypeLike, numbers: Array) -> LazyRows:
        """X of these rows in one of the dtypes that the table was made for."""
        return self._features[np.dtype(dtype)].take(numbers)

    def wanted(self, dtype: DTypeLike, numbers: Array) -> Array | LazyRows:
        """y of these rows as the objective takes it; a copy of one column, which is no more than their numbers."""
        whole = self._targets[np.dtype(dtype)]
        return whole.take(numbers) if isinstance(whole, LazyRows) else whole[numbers]


class TableRows:
    """Some rows of a table's X; an array to whoever takes them for one."""

    ndim = 2

    def __init__(self, table: Table, numbers: Array) -> None:
        self.table, self.numbers = table, numbers
        self.shape = (len(numbers), table.learnt["n_features_in_"])

    def __len__(self) -> int:
        return len(self.numbers)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """The rows as they were given."""
        return _values(self.table.X, self.numbers, dtype)

    def real(self, dtype: DTypeLike) -> LazyRows:
        """The rows as the native loop reads them."""
        return self.table.features(dtype, self.numbers)

    def learn(self, estimator: Any) -> None:
        """Write what a fit learns of the features."""
        learnt = self.table.learnt
        vars(estimator).update({name: learnt[name] for name in _OF_X if name in learnt})


class TargetRows:
    """Some rows of a table's y; an array to whoever takes them for one."""

    def __init__(self, table: Table, numbers: Array, shape: tuple[int, ...]) -> None:
        self.table, self.numbers, self.shape, self.ndim = table, numbers, shape, len(shape)

    def __len__(self) -> int:
        return len(self.numbers)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """The rows as they were given."""
        return _values(self.table.y, self.numbers, dtype)

    def real(self, dtype: DTypeLike) -> Array | LazyRows:
        """The rows as the native loop reads them."""
        return self.table.wanted(dtype, self.numbers)

    def learn(self, estimator: Any) -> None:
        """Write what a fit learns of features and classes."""
        vars(estimator).update(self.table.learnt)


def _parted(whole: Array) -> Array | LazyRows:
    return whole if whole.size == len(whole) else LazyRows(whole, whole.dtype)


def _values(given: Any, numbers: Array, dtype: Any) -> Array:
    values = _safe_indexing(given, numbers)
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype)
