# SPDX-License-Identifier: Apache-2.0
"""One representation of any table: named columns that hold numbers or text, whatever library they came from.

Two kinds are enough for a network: a number (float64, NaN where missing) and a text (a category, None where
missing). What a column was before stays in `Column.source`, for reports. Frames are read through narwhals,
which is imported when the first one arrives.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hotloop.errors import DTypeError, ShapeError

Kind = Literal["number", "text"]

_NONE = np.array(None, object)  # compared by element
_FRAME_LIBRARIES = frozenset({"pandas", "polars", "pyarrow", "modin", "cudf", "narwhals"})
_FRAME_CLASSES = frozenset({"DataFrame", "LazyFrame", "Table", "RecordBatch"})


@dataclass(frozen=True, eq=False)
class Column:
    """One column: its name, kind, values and the dtype that it came in.

    values: float64 (n,) with NaN for missing where kind is "number"; object (n,) with str or None for
    missing where kind is "text". Not to be written to: they may be the caller's own memory.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    source: str

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where a value is missing, bool (n,).

        >>> as_columns({"a": [1.0, None]}, where="example")["a"].missing.tolist()
        [False, True]
        """
        if self.kind == "number":
            return np.asarray(np.isnan(self.values), bool)
        return np.asarray(self.values == _NONE, bool)


@dataclass(frozen=True, eq=False)
class Columns:
    """An ordered table of `Column`s of equal length and different names; made by `as_columns`.

    >>> table = as_columns({"age": [31, 47], "city": ["Rome", None]}, where="example")
    >>> table.rows, table.names, table["city"].kind
    (2, ('age', 'city'), 'text')
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        check_names([column.name for column in self.columns], "Columns")
        check_lengths(self.columns, "Columns")

    @property
    def rows(self) -> int:
        """The number of rows; 0 without columns."""
        return len(self.columns[0].values) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def __getitem__(self, name: str) -> Column:
        """The column of that name. Raises `ShapeError` if there is none."""
        return self.select([name]).columns[0]

    def take(self, rows: NDArray[Any] | slice | Sequence[int]) -> Columns:
        """These rows: a slice (no copy), indices (k,) or a mask (n,).

        >>> as_columns({"a": [1, 2, 3]}, where="example").take([2, 0])["a"].values.tolist()
        [3.0, 1.0]
        """
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        if isinstance(index, np.ndarray) and index.size == 0 and index.dtype.kind == "f":
            index = index.astype(np.intp)  # an empty list says no dtype
        return Columns(tuple(Column(c.name, c.kind, c.values[index], c.source) for c in self.columns))

    def drop(self, *names: str) -> Columns:
        """All columns but these. Raises `ShapeError` for a name that is not there."""
        self.select(names)
        return Columns(tuple(column for column in self.columns if column.name not in names))

    def select(self, names: Iterable[str], *, where: str = "Columns") -> Columns:
        """These columns, in this order. Raises `ShapeError` with the first name that is not there.

        >>> as_columns({"age": [1], "city": ["Rome"]}, where="example").select(["citi"])
        Traceback (most recent call last):
        hotloop.errors.ShapeError: [Columns] no column 'citi'; did you mean 'city'? Columns: age, city
        """
        wanted = tuple(names)
        for name in wanted:
            if name not in self._by_name:
                raise ShapeError(
                    f"[{where}] no column {name!r}{near(name, self.names)} Columns: {listed(self.names)}"
                )
        return Columns(tuple(self._by_name[name] for name in wanted))


def is_frame(data: Any) -> bool:
    """True for what has named columns by itself: `Columns`, a frame of pandas, Polars, Arrow, Modin or cuDF,
    a structured array. A mapping is not: it may as well be the named inputs of a model. Imports nothing.

    >>> is_frame(np.zeros(3, [("a", "f8"), ("b", "i4")])), is_frame(np.zeros((3, 2)))
    (True, False)
    """
    if isinstance(data, Columns):
        return True
    if isinstance(data, np.ndarray):
        return data.dtype.names is not None
    return _of_a_frame_library(data, _FRAME_CLASSES)


def as_columns(data: Any, *, where: str) -> Columns:
    """Any table as `Columns`.

    Args:
        data: `Columns`; a frame of pandas, Polars, Arrow or Modin (extra ``data``); a mapping of names to
            one-dimensional sequences; a structured array; or what NumPy takes for a 2-D array, whose columns
            are named x0, x1, ...
        where: who asks, for messages.

    Booleans become 0 and 1, dates and times days since 1970-01-01 (in UTC where there is a zone), times of day
    and durations days, decimals and integers float64, categoricals and enums text. A column that mixes text
    and numbers is text. Nothing is copied that is float64 already.

    Raises `ShapeError` (no table, lengths that differ, two columns of one name), `DTypeError` (cells that are
    neither number, text nor time) and `ImportError` (a frame, and narwhals is not installed).

    >>> table = as_columns({"when": np.array(["1970-01-03"], "M8[D]"), "ok": [True]}, where="example")
    >>> [(c.kind, c.values.tolist(), c.source) for c in table.columns]
    [('number', [2.0], 'datetime64[D]'), ('number', [1.0], 'bool')]
    """
    from hotloop.data import cells

    if isinstance(data, Columns):
        return data
    if is_frame(data) and not isinstance(data, np.ndarray):
        from hotloop.data import frames

        return frames.frame_columns(data, where=where)
    if isinstance(data, Mapping):
        names = check_names(data, where)
        return _columns(names, data.values(), where)
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        if data.ndim != 1:
            raise ShapeError(f"[{where}] a structured array must have shape (rows,), got {data.shape}")
        return _columns(
            check_names(data.dtype.names, where), [data[name] for name in data.dtype.names], where
        )
    matrix = cells.matrix(data, where=where)
    names = tuple(f"x{i}" for i in range(matrix.shape[1]))
    return _columns(names, matrix.T, where)


def as_column(name: str, data: Any, *, where: str) -> Column:
    """One column: a series, an Arrow array, or any one-dimensional sequence. Raises as `as_columns`.

    >>> as_column("a", [True, None], where="example").values.tolist()
    [1.0, nan]
    """
    if _of_a_frame_library(data, frozenset({"Series", "ChunkedArray", "Array"})):
        from hotloop.data import frames

        return frames.series_column(name, data, where=where)
    from hotloop.data import cells

    return cells.column(name, data, where=where)


def _columns(names: Sequence[str], sequences: Iterable[Any], where: str) -> Columns:
    columns = [as_column(name, values, where=where) for name, values in zip(names, sequences, strict=True)]
    check_lengths(columns, where)
    return Columns(tuple(columns))


def check_lengths(columns: Sequence[Column], where: str) -> None:
    """Raises `ShapeError` with the first column that is longer or shorter than the first one."""
    for column in columns[1:]:
        if len(column.values) != len(columns[0].values):
            raise ShapeError(
                f"[{where}] column {column.name!r} has {len(column.values)} rows, {columns[0].name!r} has "
                f"{len(columns[0].values)}; all columns of a table are equally long"
            )


def check_names(names: Iterable[Any], where: str) -> tuple[str, ...]:
    """The names as text, all different. Raises `ShapeError` with the first name that stands there twice.

    >>> check_names(["a", 1], "example")
    ('a', '1')
    """
    texts = tuple(str(name) for name in names)
    seen: dict[str, int] = {}
    for i, name in enumerate(texts):
        if name in seen:
            raise ShapeError(
                f"[{where}] columns {seen[name]} and {i} have the same name {name!r}; rename one of them"
            )
        seen[name] = i
    return texts


def near(name: str, names: Sequence[str]) -> str:
    """What to append to a message about an unknown name: the most similar ones, if any are.

    >>> near("hight", ["height", "width"])
    "; did you mean 'height'?"
    """
    found = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ";"


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names for a message, the first ``limit`` of them.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b, ... (3 in all)'
    """
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _of_a_frame_library(data: Any, classes: frozenset[str]) -> bool:
    """By the names of the classes that it inherits from: a subclass of pandas' DataFrame is a frame too."""
    return any(
        base.__name__ in classes and base.__module__.split(".")[0] in _FRAME_LIBRARIES
        for base in type(data).__mro__
    )


def refuse_cells(where: str, name: str, row: int, value: Any) -> DTypeError:
    """The error for a cell that is neither a number nor text nor a time."""
    return DTypeError(
        f"[{where}] column {name!r}, row {row}: {str(value)[:40]!r} has type {type(value).__name__}; allowed: "
        "numbers, text, booleans, dates and times, and None or NaN for missing; take it apart into columns, or drop it"
    )
