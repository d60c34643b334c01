# SPDX-License-Identifier: Apache-2.0
"""Rows of whatever holds a table: arrays, mappings of them, frames and series of any data-frame library.

`split` and `check` count rows, take rows and compare rows, and nothing else: here is how, once for every kind.
What is taken is of the kind that was given: a pandas frame gives a pandas frame, with its index.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.data.columns import Columns, as_columns, is_frame
from hotloop.errors import NonFiniteError, ShapeError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

_BLOCK = 8192  # rows whose fingerprints stay in the cache while column after column is mixed in
_LIBRARIES = ("pandas", "polars", "pyarrow", "modin")


def holder(where: str, name: str, data: Any) -> Any:
    """``data`` as something that `n_rows` and `take` know: frames and series as they are, mappings as a dict,
    all else as an array. Raises `ShapeError` for what has no rows."""
    if type(data).__name__ == "LazyFrame":
        data = data.collect()
    if is_named(data) or is_series(data):
        return data
    if hasattr(data, "tocsr"):
        return data.tocsr()  # of SciPy's sparse kinds the one that gives rows
    if isinstance(data, Mapping):
        if not data:
            raise ShapeError(f"[{where}] {name} is an empty mapping; give at least one named array")
        return {str(key): holder(where, f"{name}[{key!r}]", value) for key, value in data.items()}
    array = np.asarray(data)
    if array.ndim == 0:
        raise ShapeError(f"[{where}] {name} must have rows, got a single {type(data).__name__}")
    return array


def is_series(data: Any) -> bool:
    """Whether this is one column of a data-frame library; imports nothing.

    >>> is_series(np.zeros(3))
    False
    """
    library = type(data).__module__.partition(".")[0]
    kinds = ("Series", "ChunkedArray", "Index")
    return library in _LIBRARIES and library in sys.modules and type(data).__name__ in kinds


def n_rows(data: Any) -> int:
    """The rows of what `holder` gave; of a mapping, of its first part."""
    if isinstance(data, Columns):
        return data.rows
    if isinstance(data, dict):
        return n_rows(next(iter(data.values())))
    return int(data.shape[0]) if hasattr(data, "tocsr") else len(data)


def take(data: Any, rows: Rows) -> Any:
    """The rows with these numbers, in this order, of the kind that ``data`` is."""
    if isinstance(data, dict):
        return {key: take(value, rows) for key, value in data.items()}
    if isinstance(data, np.ndarray) or hasattr(data, "tocsr"):
        return data[rows]
    if isinstance(data, Columns):
        return data.take(rows)
    import narwhals as nw

    native: Any = nw.from_native(data, eager_only=True, allow_series=True)
    return native[rows].to_native()


def is_named(data: Any) -> bool:
    """Whether this is a frame; a structured array is an array here."""
    return is_frame(data) and not isinstance(data, np.ndarray)


def has_column(data: Any, name: str) -> bool:
    """Whether ``data`` is a frame with a column of this name."""
    return is_named(data) and name in column_names(data)


def column_names(frame: Any) -> tuple[str, ...]:
    """The names of a frame's columns, in order."""
    if isinstance(frame, Columns):
        return frame.names
    import narwhals as nw

    return tuple(map(str, nw.from_native(frame, eager_only=True).columns))


def column(frame: Any, name: str) -> Any:
    """One column of a frame: a series of its library; the values of a `Columns`."""
    if isinstance(frame, Columns):
        return frame[name].values
    import narwhals as nw

    return nw.from_native(frame, eager_only=True)[name].to_native()


def without(frame: Any, name: str) -> Any:
    """A frame of the same kind without one column."""
    if isinstance(frame, Columns):
        return frame.drop(name)
    import narwhals as nw

    return nw.from_native(frame, eager_only=True).drop(name).to_native()


def one_dimensional(data: Any, name: str, where: str) -> Array:
    """A column as numbers, text or dates (n,): what splits stratify, group and order by. Missing text is None,
    a missing number NaN, a missing date NaT. Raises `ShapeError` unless it is one column."""
    values = np.asarray(data)
    if values.ndim != 1:
        raise ShapeError(f"[{where}] {name} must be one column, shape (n,), got {values.shape}")
    if values.dtype.kind in "OT":  # other arrays as they are: as_columns would round large integers
        values = as_columns({name: data}, where=where)[name].values
    return values


def refuse_missing(values: Array, name: str, where: str) -> None:
    """Raises `NonFiniteError` with the first row of a column (n,) that has no value."""
    if values.dtype == object:
        missing = np.fromiter((v is None for v in values.tolist()), bool, len(values))
    else:
        missing = values != values if values.dtype.kind in "fmM" else np.zeros(len(values), bool)
    bad = np.flatnonzero(missing)
    if len(bad):
        raise NonFiniteError(
            f"[{where}] {name} has no value in row {bad[0]} ({len(bad)} such rows in all); every row needs one: "
            "fill them in or drop the rows"
        )


def numbered(values: Array) -> Rows:
    """Equal values as equal numbers 0, 1, ... in sorted order, text included; missing ones as the last.

    >>> numbered(np.array(["b", None, "a", "b"], object)).tolist()
    [1, 2, 0, 1]
    """
    if values.dtype != object:
        _, numbers = np.unique(
            values, return_inverse=True
        )  # NaN and NaT sort last and are equal to themselves
        return numbers.reshape(-1).astype(np.int64)
    kinds = sorted(set(values.tolist()) - {None})
    place = {kind: i for i, kind in enumerate(kinds)}
    last = len(kinds)
    return np.fromiter((place.get(v, last) for v in values.tolist()), np.int64, len(values))


def fingerprints(*holders: Any) -> npt.NDArray[np.uint64]:
    """A 64-bit fingerprint (n,) of each row over everything given: equal rows have equal ones.

    -0 equals 0, and missing equals missing. Two of a million different rows share one with a chance of 3e-8
    (n^2 / 2^65). Those of text differ from process to process.
    """
    total = np.zeros(n_rows(holders[0]), np.uint64)
    for values in _matrices(holders):
        for start in range(0, len(total), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = values[rows]
            for words in _words(block.toarray() if hasattr(block, "toarray") else block):
                total[rows] = _mixed(total[rows] ^ words)
    return total


def _matrices(holders: Any) -> Iterator[Any]:
    """Everything that the rows consist of, as arrays or sparse matrices (n, k)."""
    for data in holders:
        if isinstance(data, dict):
            yield from _matrices(data.values())
        elif is_frame(data):
            yield from (c.values.reshape(-1, 1) for c in as_columns(data, where="data").columns)
        elif hasattr(data, "tocsr"):
            yield data
        elif isinstance(data, np.ndarray):
            yield data.reshape(len(data), -1)
        else:
            yield one_dimensional(data, "y", "data").reshape(-1, 1)  # a series


def _words(block: Array) -> npt.NDArray[np.uint64]:
    """Cells (rows, k) as 64-bit words (k, rows); equal cells are equal words."""
    kind, size = block.dtype.kind, block.dtype.itemsize
    if kind == "f" and size <= 8:
        wide = np.ascontiguousarray(block.T, np.float64) + 0.0  # -0 becomes 0
        wide[np.isnan(wide)] = np.nan  # of all NaNs one
        return wide.view(np.uint64)
    if kind in "ibmM" and size <= 8:
        return np.ascontiguousarray(block.T).astype(np.int64).view(np.uint64)
    if kind == "u" and size <= 8:
        return np.ascontiguousarray(block.T, np.uint64)
    cells = block.T.ravel().tolist()
    return np.fromiter(map(hash, cells), np.int64, len(cells)).view(np.uint64).reshape(block.shape[::-1])


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), in place: every bit in moves every bit out."""
    words += np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
