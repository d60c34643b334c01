# SPDX-License-Identifier: Apache-2.0
"""Frames of numbers as arrays, and the order of their columns.

A frame that is one block of numbers is used as it lies; others are gathered column by column. Text and gaps
are refused with the column's name, because a network takes neither: a `Preprocessor` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.data.columns import Columns, as_columns, check_names, is_frame, listed, near
from hotloop.errors import DTypeError, NonFiniteError, ShapeError

Array = NDArray[Any]
_ADVICE = (
    "encode or fill it, or let a preprocessor do so: trainer.preprocessor = hl.data.Preprocessor.fit(X, y)"
)

__all__ = ["as_matrix", "is_frame", "names_of", "order_of"]


def names_of(frame: Any, where: str) -> tuple[str, ...]:
    """The names of a frame's columns, as text. Raises `ShapeError` if one stands there twice."""
    if isinstance(frame, Columns):
        return frame.names
    if isinstance(frame, np.ndarray):
        return check_names(frame.dtype.names or (), where)
    if type(frame).__name__ == "LazyFrame":
        return check_names(frame.collect_schema().names(), where)
    names = getattr(frame, "column_names", None)  # Arrow's `columns` are the data
    return check_names(frame.columns if names is None else names, where)


def as_matrix(frame: Any, name: str, where: str, check: Callable[[Any, str], Array]) -> Array:
    """A frame of numbers as an array (rows, columns), which ``check``, the border's check of one, has accepted.

    Booleans become 0 and 1, dates days since 1970-01-01. Raises `DTypeError` for text and `NonFiniteError` for
    missing values, with the column's name, and as ``check``.
    """
    if not isinstance(frame, (Columns, np.ndarray)) and hasattr(frame, "__array__"):
        matrix = np.asarray(frame)
        if matrix.ndim == 2 and matrix.dtype.kind in "fiu":
            try:
                return check(matrix, name)
            except NonFiniteError:
                pass  # said below, with the column's name
    table = as_columns(frame, where=where)
    for column in table.columns:
        if column.kind == "text":
            raise DTypeError(
                f"[{where}] {name} has text in column {column.name!r}, such as {_first_text(column.values)}; allowed: "
                f"numbers; {_ADVICE}"
            )
        bad = np.flatnonzero(np.isnan(column.values))
        if len(bad):
            raise NonFiniteError(
                f"[{where}] {name} has a missing value in column {column.name!r}, row {bad[0]} ({len(bad)} in "
                f"{table.rows} rows); allowed: numbers; {_ADVICE}"
            )
    if not table.columns:
        raise ShapeError(f"[{where}] {name} is a frame without columns; at least one is needed")
    return check(np.stack([column.values for column in table.columns], axis=1), name)


def _first_text(values: Array) -> str:
    return next((repr(str(value))[:40] for value in values if value is not None), "None")


def order_of(
    names: Sequence[str], expected: Sequence[str], *, where: str, name: str = "X"
) -> list[int] | None:
    """Where the expected columns stand among ``names``; None if they stand there as expected.

    Raises `ShapeError` with the first difference unless the two are the same columns in some order.

    >>> order_of(["b", "a"], ["a", "b"], where="predict")
    [1, 0]
    >>> order_of(["a", "c"], ["a", "b"], where="predict")
    Traceback (most recent call last):
    hotloop.errors.ShapeError: [predict] X has other columns than the model was trained on: column 1 is 'c', expected 'b'; give the columns a, b, in any order
    """
    names, expected = tuple(names), tuple(expected)
    if names == expected:
        return None
    place = {column: i for i, column in enumerate(names)}
    if len(place) == len(expected) and all(column in place for column in expected):
        return [place[column] for column in expected]
    at = _first_difference(names, expected)
    got = f"column {at} is {names[at]!r}" if at < len(names) else f"column {at} is not there"
    wanted = f"expected {expected[at]!r}" if at < len(expected) else "expected no more"
    missing = next((column for column in expected if column not in place), None)
    hint = (
        near(missing, names)[1:].removesuffix("?")
        if missing is not None and near(missing, names) != ";"
        else ""
    )
    meant = f" ({missing!r} is missing;{hint}?)" if hint else ""
    raise ShapeError(
        f"[{where}] {name} has other columns than the model was trained on: {got}, {wanted}{meant}; give the "
        f"columns {listed(expected)}, in any order"
    )


def _first_difference(names: Sequence[str], expected: Sequence[str]) -> int:
    """The first place whose column is not an expected one, or, if all are, where one is too few or too many."""
    for at, (got, wanted) in enumerate(zip(names, expected, strict=False)):
        if got != wanted and (got not in expected or wanted not in names):
            return at
    return min(len(names), len(expected))
