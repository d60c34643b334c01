# SPDX-License-Identifier: Apache-2.0
"""`read` and `read_blocks`: a file as `Columns`, whole or block by block.

CSV, Parquet and Arrow go through pyarrow (extra ``data``). Without it, CSV files of numbers are read by the csv
module: few, slower, and with the same meaning. NPZ files and scikit-learn's small data sets are read by tables.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from hotloop.arguments import count
from hotloop.data.columns import Column, Columns, as_columns
from hotloop.data.csv_format import (
    MISSING,
    CsvFormat,
    check_known,
    explained,
    find_format,
    no_rows,
    not_a_number,
    records,
)
from hotloop.data.schema import Schema
from hotloop.data.tables import BUNDLED, read_table
from hotloop.errors import ShapeError

if TYPE_CHECKING:
    from hotloop.data.arrow_files import CsvRequest

_CSV = (".csv", ".tsv", ".txt")
_BINARY = (".parquet", ".pq", ".feather", ".arrow", ".ipc")


@dataclass(frozen=True, eq=False)
class FileTable(Columns):
    """The `Columns` of a file, with where they come from and what was guessed to read them.

    ``print(table.schema)`` shows how every column was understood. Parts of it (`take`, `select`, `drop`) are
    plain `Columns`.
    """

    source: str = ""
    guesses: tuple[str, ...] = ()

    @cached_property
    def schema(self) -> Schema:
        """Name, type, missing and distinct values of each column, and an example."""
        return Schema.of(self, self.guesses)


def read(
    source: Union[str, os.PathLike[str]],
    *,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
) -> FileTable:
    """Read a table: CSV (.csv, .tsv, .txt), Parquet, Arrow IPC or Feather, NPZ, or a bundled data set by name.

    Args:
        source: path, or one of "digits", "iris", "wine", "breast_cancer", "diabetes" (the extra ``sklearn``).
        columns: the columns to read, in this order; None: all.
        kinds: "number" or "text" by column, where the cells should not decide: ``{"zip": "text"}``. CSV only.
        separator, decimal: of a CSV file; None finds them out (``,`` ``;`` tab ``|``; point or comma).
        encoding: of a CSV file; a byte order mark is left out.
        missing: the cells of a CSV file that mean a missing value, blanks around them aside.

    The first line of a CSV file names the columns. Values may be quoted by ``"`` and then hold separators and
    line ends. Dates and times become days since 1970-01-01, see `hotloop.data.columns.as_columns`.

    Raises `OSError`; `ShapeError` for ragged lines and unknown or repeated columns, `DTypeError` for text in a
    column that ``kinds`` calls a number, `ValueError` for what is no such file, a wrong encoding and an empty
    table, each with the line; `ImportError` for what only pyarrow can read.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "t.csv")
    ...     _ = path.write_text("size; weight\\n1,5; 20\\nNA; 31\\n")
    ...     table = read(path)
    >>> table["size"].values.tolist(), table.guesses
    ([1.5, nan], ('semicolon between values', 'decimal commas'))
    """
    path = Path(source)
    if not path.suffix and str(source) in BUNDLED:
        return _selected(_bundled(str(source)), columns, str(source))
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _selected(_npz(path), columns, str(path))
    if suffix in _BINARY:
        _need_pyarrow(path)
        from hotloop.data import arrow_files

        return _checked(FileTable(arrow_files.read_binary(path, columns).columns, str(path)))
    form, request = _csv(path, suffix, columns, kinds, separator, decimal, encoding, missing)
    if request is None:
        blocks = list(_plain_blocks(path, form, columns, kinds or {}, tuple(missing), 1 << 30))
        found = blocks[0].columns if blocks else ()
        return _checked(FileTable(found, str(path), form.guesses))
    from hotloop.data import arrow_files

    table, guesses = arrow_files.read_csv(request)
    return _checked(FileTable(table.columns, str(path), form.guesses + guesses))


def read_blocks(
    source: Union[str, os.PathLike[str]],
    *,
    rows: int = 1 << 16,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
) -> Iterator[Columns]:
    """Read a table larger than memory: an iterator over blocks of ``rows`` rows, the last one shorter.

    Arguments and errors are those of `read`. All blocks have one schema: whether a column of a CSV file is number
    or text is decided by ``kinds``, or else by the first MiB; text in a column of numbers later on is an error
    with its line. Memory is that of a block, and of a row group in a Parquet file.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "t.csv")
    ...     _ = path.write_text("a,b\\n" + "1,2\\n" * 5)
    ...     [block.rows for block in read_blocks(path, rows=2)]
    [2, 2, 1]
    """
    path, suffix = Path(source), Path(source).suffix.lower()
    rows = count("data", "rows", rows, low=1)
    if suffix == ".npz" or (not suffix and str(source) in BUNDLED):
        whole = read(source, columns=columns)
        return (whole.take(slice(i, i + rows)) for i in range(0, whole.rows, rows))
    if suffix in _BINARY:
        _need_pyarrow(path)
        from hotloop.data import arrow_files

        return arrow_files.binary_blocks(path, columns, rows)
    form, request = _csv(path, suffix, columns, kinds, separator, decimal, encoding, missing)
    if request is None:
        return _plain_blocks(path, form, columns, kinds or {}, tuple(missing), rows)
    from hotloop.data import arrow_files

    return arrow_files.csv_blocks(request, rows)


# --- parts ----------------------------------------------------------------------------------------


def _csv(
    path: Path, suffix: str, columns: Sequence[str] | None, kinds: Mapping[str, str] | None,
    separator: str | None, decimal: str | None, encoding: str, missing: Sequence[str],
) -> tuple[CsvFormat, CsvRequest | None]:  # fmt: skip
    """The format of a CSV file, and what to ask pyarrow for; None for the latter where it is not installed."""
    if suffix not in _CSV:
        raise ValueError(
            f"[data] cannot read {str(path)!r}; allowed: {', '.join((*_CSV, *_BINARY, '.npz'))} files, or one of "
            f"{', '.join(BUNDLED)}"
        )
    form = find_format(path, separator=separator, decimal=decimal, encoding=encoding)
    wanted = form.names if columns is None else tuple(columns)
    check_known(path, list(wanted), form.names, "asked for")
    check_known(path, list(kinds or {}), form.names, "in kinds=")
    for name, kind in (kinds or {}).items():
        if kind not in ("number", "text"):
            raise ValueError(f"[data] kinds[{name!r}] must be 'number' or 'text', got {kind!r}")
    if not _has_pyarrow():
        return form, None
    from hotloop.data.arrow_files import CsvRequest

    return form, CsvRequest(path, form, wanted, kinds or {}, tuple(missing))


def _has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def _need_pyarrow(path: Path) -> None:
    if not _has_pyarrow():
        raise ImportError(
            f"[data] reading {path} needs pyarrow; install the extra: pip install 'hotloop[data]'"
        )


def _plain_blocks(
    path: Path, form: CsvFormat, columns: Sequence[str] | None, kinds: Mapping[str, str],
    missing: tuple[str, ...], rows: int,
) -> Iterator[Columns]:  # fmt: skip
    """A CSV file of numbers, by the csv module. Raises `ImportError` at the first cell of text."""
    wanted = form.names if columns is None else tuple(columns)
    places = [form.names.index(name) for name in wanted]
    found = records(path, form)
    number = partial(_number, path, form.decimal, kinds, frozenset(missing))
    while chunk := list(itertools.islice(found, rows)):
        if any(len(record) != len(form.names) for _, record in chunk):
            raise explained(path, form, {}, ValueError())
        yield Columns(
            tuple(
                Column(
                    name,
                    "number",
                    np.array([number(line, name, record[i]) for line, record in chunk]),
                    "csv",
                )
                for name, i in zip(wanted, places, strict=True)
            )
        )


def _number(
    path: Path, decimal: str, kinds: Mapping[str, str], missing: frozenset[str], line: int, name: str, cell: str
) -> float:  # fmt: skip
    cell = cell.strip()
    if cell in missing:
        return np.nan
    try:
        return float(cell.replace(decimal, ".") if decimal != "." else cell)
    except ValueError:
        if kinds.get(name) == "number":
            raise not_a_number(path, line, name, cell) from None
        raise ImportError(
            f"[data] {path}, line {line}, column {name!r}: {cell[:40]!r} is not a number; tables with text need "
            "pyarrow: pip install 'hotloop[data]'"
        ) from None


def _checked(table: FileTable) -> FileTable:
    if table.rows == 0:
        raise no_rows(table.source)
    return table


def _selected(columns: list[Column], names: Sequence[str] | None, source: str) -> FileTable:
    table = FileTable(tuple(columns), source)
    return table if names is None else FileTable(table.select(names, where="data").columns, source)


def _bundled(name: str) -> list[Column]:
    """Features, and the column "target": the names of the classes, or numbers."""
    table = read_table(name)
    columns = [
        Column(n, "number", np.ascontiguousarray(table.features[:, i]), "float64")
        for i, n in enumerate(table.feature_names)
    ]
    assert table.target is not None
    if table.task == "classification":
        target = np.array(table.class_names, object)[table.target]
        return [*columns, Column("target", "text", target, "classes")]
    return [*columns, Column("target", "number", table.target, "float64")]


def _npz(path: Path) -> list[Column]:
    """Every one-dimensional array by its name; of others the parts of a row, as x0, x1, ... or name[0], ..."""
    from hotloop.data.tables import read_arrays

    columns: list[Column] = []
    arrays = read_arrays(path)
    for name, values in arrays.items():
        if values.ndim == 0:
            raise ShapeError(f"[data] {path}: {name!r} is a single value; arrays need rows")
        flat = {name: values} if values.ndim == 1 else _parts(name, values)
        columns += as_columns(flat, where="data").columns
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ShapeError(f"[data] {path}: arrays must have equally many rows, got {lengths}")
    return columns


def _parts(name: str, values: Any) -> dict[str, Any]:
    flat = values.reshape(len(values), -1)
    label = "x{}" if name == "X" else f"{name}[{{}}]"
    return {label.format(i): flat[:, i] for i in range(flat.shape[1])}
