# SPDX-License-Identifier: Apache-2.0
"""One sequence of cells as a `Column`: arrays by their dtype, Python objects by the types that occur.

Objects are looked at through maps and sets that run in C; a Python loop sees them only where they mix.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.data.columns import Column, refuse_cells
from hotloop.errors import DTypeError, ShapeError

_DAY = np.timedelta64(1, "D")
_DAY_S = 86400.0
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
#: pandas' marks of a missing value, known by name because pandas is not imported here.
_MISSING_TYPES = frozenset({"NoneType", "NAType", "NaTType"})


def matrix(data: Any, *, where: str) -> NDArray[Any]:
    """A 2-D array of numbers, text or objects, (n, d). Raises `ShapeError` for another rank.

    >>> matrix([[1, "a"], [2, None]], where="example").dtype
    dtype('O')
    """
    if isinstance(data, np.ndarray):
        array = data
    else:
        try:
            array = np.asarray(data)
            if array.dtype.kind in "USOM" and array.ndim == 2:  # NumPy would turn [1, "a"] into two texts
                array = np.array(data, dtype=object)
        except ValueError:
            raise ShapeError(f"[{where}] the table is ragged: its rows differ in length") from None
    if array.ndim == 2:
        return array
    hint = "; make a sparse matrix dense: X.toarray()" if hasattr(data, "toarray") else ""
    if array.ndim == 1 and array.dtype.kind in "iufb":
        hint = "; use X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one row"
    raise ShapeError(
        f"[{where}] a table must have shape (rows, features), got {array.shape}; allowed: a frame, a mapping of "
        f"names to columns, a 2-D array{hint}"
    )


def column(name: str, values: Any, *, where: str) -> Column:
    """One column of a one-dimensional array or sequence. Raises `ShapeError`, `DTypeError`.

    >>> column("a", [1, None, 2.5], where="example").values.tolist()
    [1.0, nan, 2.5]
    >>> column("a", ["x", None, 3], where="example").values.tolist()
    ['x', None, '3']
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise ShapeError(
            f"[{where}] column {name!r} is a {type(values).__name__}; allowed: a 1-D array or sequence"
        )
    if isinstance(values, np.ma.MaskedArray):
        array = np.asarray(values).astype(object)
        array[np.ma.getmaskarray(values)] = None
    elif isinstance(values, np.ndarray):
        array = values
    else:
        array = _array(values)
    if array.ndim != 1:
        raise ShapeError(
            f"[{where}] column {name!r} must have shape (rows,), got {array.shape}; one column per feature"
        )
    source = str(array.dtype)
    kind = array.dtype.kind
    if kind in "biuf":
        return Column(name, "number", array.astype(np.float64, copy=False), source)
    if kind in "mM":
        return Column(name, "number", days(array), source)
    if kind == "S":
        array = _decoded(name, array, where)
    if array.dtype.kind in "UT":
        return Column(name, "text", array.astype(object), source)
    if kind != "O":
        raise DTypeError(
            f"[{where}] column {name!r} has dtype {array.dtype}; allowed: real numbers, text, times"
        )
    return object_column(name, array, source, where=where)


def days(array: NDArray[Any]) -> NDArray[np.float64]:
    """datetime64 or timedelta64 (n,) as days, since 1970-01-01 or as they are; NaN for NaT.

    >>> days(np.array(["1970-01-02T12:00", "NaT"], "M8[s]")).tolist()
    [1.5, nan]
    """
    if array.dtype.kind == "M":
        array = array - np.datetime64(0, "D")
    if np.datetime_data(array.dtype)[0] in "YM":  # no fixed length: a duration in months has no days
        raise DTypeError(f"durations in {array.dtype} have no length in days; convert them first")
    return np.asarray(array / _DAY, np.float64)


def object_column(name: str, array: NDArray[Any], source: str, *, where: str) -> Column:
    """A column of Python objects (n,): numbers, text, times, or text and numbers mixed, which is text."""
    cells = array.tolist()
    types = set(map(type, cells))
    present = {t for t in types if t.__name__ not in _MISSING_TYPES}
    texts = {t for t in types if issubclass(t, str)}
    if present == {str}:  # the usual case: text, with None or NA where missing
        if types <= {str, type(None)}:
            return Column(name, "text", array, source)
        return Column(name, "text", objects([v if type(v) is str else None for v in cells]), source)
    if present <= {int, float, bool}:
        with contextlib.suppress(OverflowError):  # the loop below knows where
            return Column(name, "number", _floats(cells, types), source)
    parsed = [v if isinstance(v, str) else _number(name, row, v, where) for row, v in enumerate(cells)]
    if not texts:
        return Column(name, "number", np.array(parsed, np.float64), source)
    if any(isinstance(v, float) and not math.isnan(v) for v in parsed):
        source = f"mixed ({', '.join(sorted(t.__name__ for t in present))})"
    return Column(name, "text", objects([text_of(v) for v in parsed]), source)


def _floats(cells: list[Any], types: set[type]) -> NDArray[np.float64]:
    if not types <= {int, float, bool, type(None)}:
        cells = [v if isinstance(v, (int, float)) else None for v in cells]
    return np.array(cells, np.float64)  # None becomes NaN


def _number(name: str, row: int, value: Any, where: str) -> float:
    """A number, boolean, date or time as float; NaN for what marks a missing value."""
    if type(value).__name__ in _MISSING_TYPES:
        return math.nan
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return float(days(np.array([value]))[0])
    if isinstance(value, (numbers.Real, decimal.Decimal, fractions.Fraction, np.bool_)):
        try:
            return float(value)
        except OverflowError:
            raise DTypeError(
                f"[{where}] column {name!r}, row {row}: a whole number beyond the range of float64; correct it, or "
                "make it text"
            ) from None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return (aware - _EPOCH).total_seconds() / _DAY_S
    if isinstance(value, datetime.date):
        return float((value - _EPOCH.date()).days)
    if isinstance(value, datetime.time):
        seconds = value.hour * 3600 + value.minute * 60 + value.second
        return (seconds + value.microsecond / 1e6) / _DAY_S
    if isinstance(value, datetime.timedelta):
        return value.total_seconds() / _DAY_S
    raise refuse_cells(where, name, row, value)


def text_of(value: Any) -> str | None:
    """A cell as the name of a category: whole numbers without a point, None for what is missing.

    >>> text_of("a"), text_of(3.0), text_of(0.5), text_of(float("nan"))
    ('a', '3', '0.5', None)
    """
    if type(value).__name__ in _MISSING_TYPES:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(float(value))
    return str(value)


def _array(values: Any) -> NDArray[Any]:
    """A sequence as an array, without NumPy's habit of making text of [1, "a"]."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths: cells that will be refused by their place
        return objects(list(values))
    if array.dtype.kind in "USTOMm" and array.ndim == 1:
        return objects(list(values))
    return array


def objects(cells: list[Any]) -> NDArray[Any]:
    """A list as an object array (n,), whatever its elements are.

    >>> objects([[1], (2, 3)]).shape
    (2,)
    """
    out = np.empty(len(cells), object)
    out[:] = cells
    return out


def _decoded(name: str, array: NDArray[Any], where: str) -> NDArray[Any]:
    try:
        return np.asarray(np.strings.decode(array, "utf-8"))
    except UnicodeDecodeError as error:
        raise DTypeError(
            f"[{where}] column {name!r} holds bytes that are not UTF-8 ({error.reason})"
        ) from None
