# SPDX-License-Identifier: Apache-2.0
"""X of one data set for the fits and predictions of many estimators: checked and converted once, never copied.

What an estimator is given in place of X[rows] is `TableRows`: their numbers. The native loop gathers the rows from
the one array; whoever else asks for values, such as a scorer that looks at X, gets a copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import validate_data

from hotloop.data.lazy import LazyRows

Array = NDArray[Any]

#: How scikit-learn checks X for an estimator.
CHECKS: dict[str, Any] = {"accept_sparse": ("csr", "csc"), "dtype": (np.float64, np.float32)}
_LEARNT = ("n_features_in_", "feature_names_in_")


class Table:
    """X (n, features) as ``estimator`` takes it, for fits in the dtypes ``reals``. Raises what its `fit` would."""

    def __init__(self, estimator: Any, X: Any, reals: set[Any]) -> None:
        learner = clone(estimator)
        checked = validate_data(learner, X, **CHECKS)
        self.given = X
        #: What a fit learns of the features.
        self.learnt = {name: getattr(learner, name) for name in _LEARNT if hasattr(learner, name)}
        self._whole = {real: LazyRows(learner._as_real("X", checked, real), real) for real in reals}

    def rows(self, numbers: Array) -> TableRows:
        """The rows with these numbers (k,), or where these k truth values are."""
        chosen = np.asarray(numbers)
        return TableRows(self, np.flatnonzero(chosen) if chosen.dtype == bool else chosen)

    def real(self, dtype: DTypeLike) -> LazyRows:
        """All rows in one of the dtypes that the table was made for."""
        return self._whole[np.dtype(dtype)]


class TableRows:
    """Some rows of a table; an array to whoever takes them for one."""

    ndim = 2

    def __init__(self, table: Table, numbers: Array) -> None:
        self.table, self.numbers = table, numbers
        self.shape = (len(numbers), table.learnt["n_features_in_"])

    def __len__(self) -> int:
        return len(self.numbers)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """The rows as they were given."""
        values = _safe_indexing(self.table.given, self.numbers)
        dense = values.toarray() if hasattr(values, "toarray") else values
        return np.asarray(dense, dtype)

    def real(self, dtype: DTypeLike) -> LazyRows:
        """The rows as the native loop reads them."""
        return self.table.real(dtype).take(self.numbers)

    def learn(self, estimator: Any) -> None:
        """Write what a fit learns of the features."""
        vars(estimator).update(self.table.learnt)
