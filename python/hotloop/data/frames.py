# SPDX-License-Identifier: Apache-2.0
"""Frames of other libraries as `Columns`: pandas, Polars, Arrow, Modin, through narwhals (extra ``data``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.data import cells
from hotloop.data.columns import Column, Columns, check_names
from hotloop.errors import DTypeError

_MICROSECONDS_A_DAY = 86400e6


def frame_columns(data: Any, *, where: str) -> Columns:
    """A frame as `Columns`; a lazy one is collected. Raises as `hotloop.data.columns.as_columns`."""
    nw = _narwhals(where)
    if type(data).__name__ == "RecordBatch":
        import pyarrow

        data = pyarrow.Table.from_batches([data])
    if type(data).__name__ == "LazyFrame":
        data = data.collect()
    raw = getattr(data, "column_names", None)  # Arrow's `columns` are the data
    names = check_names(raw if raw is not None else data.columns, where)
    if hasattr(data, "set_axis"):  # pandas takes any object for a name, narwhals wants text
        data = data.set_axis(list(names), axis=1)
    frame = nw.from_native(data, eager_only=True)
    return Columns(tuple(_column(nw, name, frame[name], where) for name in names))


def series_column(name: str, values: Any, *, where: str) -> Column:
    """One series, or Arrow array, as a column. Raises as `hotloop.data.columns.as_columns`."""
    nw = _narwhals(where)
    if type(values).__module__ == "pyarrow.lib" and type(values).__name__ != "ChunkedArray":
        import pyarrow

        values = pyarrow.chunked_array([values])
    return _column(nw, name, nw.from_native(values, series_only=True), where)


def _narwhals(where: str) -> Any:
    try:
        import narwhals
    except ImportError:
        raise ImportError(
            f"[{where}] reading a frame needs narwhals; install the extra: pip install 'hotloop[data]', "
            "or pass a dictionary of its columns as arrays"
        ) from None
    return narwhals


def _column(nw: Any, name: str, series: Any, where: str) -> Column:
    native, dtype = series.to_native(), series.dtype
    source = str(native.type if hasattr(native, "type") else native.dtype)
    if dtype.is_numeric() or dtype == nw.Boolean:
        return Column(name, "number", _floats(nw, series), source)
    if dtype in (nw.Date, nw.Datetime):
        return Column(name, "number", _days(nw, series), source)
    if dtype == nw.Duration:
        return Column(
            name, "number", _floats(nw, series.dt.total_microseconds()) / _MICROSECONDS_A_DAY, source
        )
    if dtype in (nw.Categorical, nw.Enum):
        return Column(name, "text", _categories(nw, series), source)
    if dtype in (nw.String, nw.Object, nw.Unknown, nw.Time):
        return cells.object_column(name, cells.objects(series.to_list()), source, where=where)
    raise DTypeError(
        f"[{where}] column {name!r} has dtype {source}; allowed: numbers, text, booleans, categories, dates and "
        "times; take it apart into columns, or drop it"
    )


def _floats(nw: Any, series: Any) -> NDArray[np.float64]:
    """Numbers (n,), NaN where the series has a null. Arrow itself would refuse whole numbers above 2^53, which
    NumPy rounds."""
    values = series.to_numpy()
    if values.dtype.kind == "O":  # booleans with nulls, decimals
        values = series.cast(nw.Float64).to_numpy()
    return np.asarray(values, np.float64)


def _days(nw: Any, series: Any) -> NDArray[np.float64]:
    """Days since 1970-01-01, in UTC where there is a zone."""
    if series.dtype == nw.Date:
        series = series.cast(nw.Datetime("us"))
    return _floats(nw, series.dt.timestamp("us")) / _MICROSECONDS_A_DAY


def _categories(nw: Any, series: Any) -> NDArray[Any]:
    """Text (n,), None where missing. pandas' categories may be numbers, which a missing value among the rows
    must not turn into 1.0."""
    native = series.to_native()
    if hasattr(native, "cat") and hasattr(native.cat, "codes"):
        names = cells.objects([*map(cells.text_of, native.cat.categories.tolist()), None])
        return np.asarray(names[np.asarray(native.cat.codes)])  # a missing value has code -1, the last
    return cells.objects(series.cast(nw.String).to_list())
