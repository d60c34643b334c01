# SPDX-License-Identifier: Apache-2.0
"""CSV, Parquet and Arrow files as `Columns` through pyarrow (extra ``data``): whole, or block by block.

A column of a CSV file is a number if all of its cells are, once blanks around them and marks of missing values are
gone. pyarrow finds most types itself; what it leaves as text is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hotloop.data.columns import Column, Columns, as_columns
from hotloop.data.csv_format import CsvFormat, check_known, encoding_error, explained, no_rows

#: Bytes of a CSV file that are parsed at a time.
_BLOCK_BYTES = 1 << 20


# --- CSV ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CsvRequest:
    """What is wanted of a CSV file: its columns, in order; what some must be; what marks a missing value."""

    path: Path
    form: CsvFormat
    columns: tuple[str, ...]
    kinds: Mapping[str, str]
    missing: tuple[str, ...]

    def options(self, types: Mapping[str, Any], *, threads: bool) -> dict[str, Any]:
        """pyarrow's options; ``types`` are Arrow types of columns by name, the others are found out."""
        from pyarrow import csv

        raw = dict(zip(self.form.names, self.form.header, strict=True))
        return {
            "read_options": csv.ReadOptions(
                encoding=self.form.encoding, use_threads=threads, block_size=_BLOCK_BYTES
            ),
            "parse_options": csv.ParseOptions(delimiter=self.form.separator, newlines_in_values=True),
            "convert_options": csv.ConvertOptions(
                null_values=list(self.missing),
                strings_can_be_null=True,
                decimal_point=self.form.decimal,
                include_columns=[raw[name] for name in self.columns],
                column_types={raw[name]: type_ for name, type_ in types.items()},
            ),
        }

    def fault(self, error: Exception, kinds: Mapping[str, str]) -> Exception:
        """Why the file cannot be read; ``kinds`` tells the columns that have to be numbers."""
        numbers = {name: self.missing for name in self.columns if kinds.get(name) == "number"}
        return explained(self.path, self.form, numbers, error)


def read_csv(request: CsvRequest) -> tuple[Columns, tuple[str, ...]]:
    """All rows, and what was guessed about columns."""
    from pyarrow import csv

    texts = {name: pa.string() for name, kind in request.kinds.items() if kind == "text"}
    try:
        table = csv.read_csv(request.path, **request.options(texts, threads=True))
    except pa.ArrowInvalid as error:
        raise request.fault(error, {}) from None
    columns, guesses = [], []
    for name, array in zip(request.columns, table.columns, strict=True):
        column = _csv_column(request, name, array, request.kinds.get(name))
        if column.kind == "number" and pa.types.is_string(array.type):
            guesses.append(f"numbers with blanks around them in {name!r}")
        columns.append(column)
    return Columns(tuple(columns)), tuple(guesses)


def csv_blocks(request: CsvRequest, rows: int) -> Iterator[Columns]:
    """Blocks of ``rows`` rows. What a column is, is decided by the first MiB, unless ``kinds`` says it."""
    from pyarrow import csv

    kinds, types = _kinds_of_first_block(request)
    try:
        reader = csv.open_csv(request.path, **request.options(types, threads=False))
        for batch in rechunked(reader, rows):
            yield Columns(
                tuple(
                    _csv_column(request, name, array, kinds[name])
                    for name, array in zip(request.columns, batch.columns, strict=True)
                )
            )
    except pa.ArrowInvalid as error:
        raise request.fault(error, kinds) from None


def _kinds_of_first_block(request: CsvRequest) -> tuple[dict[str, str], dict[str, Any]]:
    """What each column is from the first block on, and the Arrow type to read it as."""
    from pyarrow import csv

    try:
        first = csv.open_csv(request.path, **request.options({}, threads=False)).read_next_batch()
    except StopIteration:
        raise no_rows(request.path) from None
    except pa.ArrowInvalid as error:
        raise request.fault(error, {}) from None
    kinds, types = {}, {}
    for name, array in zip(request.columns, first.columns, strict=True):
        kind = request.kinds.get(name)
        type_ = array.type
        if kind != "text" and (
            pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_null(type_)
        ):
            kind, type_ = "number", pa.string()  # whole numbers may be followed by others, and by blanks
        elif kind == "text" or pa.types.is_string(type_):
            kind, type_ = kind or _csv_column(request, name, array, None).kind, pa.string()
        kinds[name], types[name] = kind or "number", type_
    return kinds, types


def _csv_column(request: CsvRequest, name: str, array: Any, kind: str | None) -> Column:
    """One column of the table that pyarrow read; text that is all numerals becomes numbers unless ``kind`` says."""
    if pa.types.is_binary(array.type):
        raise encoding_error(request.path, request.form.encoding)
    if pa.types.is_null(array.type):
        if kind == "text":
            return Column(name, "text", np.full(len(array), None, object), "null")
        return Column(name, "number", np.full(len(array), np.nan), "null")
    if not pa.types.is_string(array.type):
        return arrow_column(name, array)
    trimmed = pc.utf8_trim_whitespace(array)
    blank = pc.is_in(trimmed, value_set=pa.array(request.missing, pa.string()))
    cells = pc.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    if kind != "text":
        numerals = (
            cells if request.form.decimal == "." else pc.replace_substring(cells, request.form.decimal, ".")
        )
        try:
            return replace(arrow_column(name, pc.cast(numerals, pa.float64())), source="string")
        except pa.ArrowInvalid as error:
            if kind == "number":
                raise request.fault(error, {name: "number"}) from None
    return arrow_column(name, cells)


# --- Parquet and Arrow IPC ------------------------------------------------------------------------


def read_binary(path: Path, columns: Sequence[str] | None) -> Columns:
    """All rows of a Parquet, Feather or Arrow file."""
    batches = list(_batches(path, columns, 1 << 20))
    schema, names = _binary_schema(path, columns)
    table = pa.Table.from_batches(batches, schema)
    return Columns(tuple(arrow_column(name, table.column(name)) for name in names))


def binary_blocks(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[Columns]:
    """Blocks of ``rows`` rows; memory is that of a row group (Parquet) or record batch (Arrow) and a block."""
    _, names = _binary_schema(path, columns)
    for table in rechunked(_batches(path, columns, rows), rows):
        yield Columns(tuple(arrow_column(name, table.column(name)) for name in names))


def _binary_schema(path: Path, columns: Sequence[str] | None) -> tuple[Any, tuple[str, ...]]:
    """The Arrow schema of what is read, and the names in the order that was asked for."""
    with _opened(path) as file:
        schema = file.schema_arrow if hasattr(file, "schema_arrow") else file.schema
    names = tuple(schema.names)
    for i, name in enumerate(names):
        if name in names[:i]:
            check = f"columns {names.index(name) + 1} and {i + 1}"
            raise ValueError(f"[data] {path} names a column twice: {name!r}, {check}; rename one of them")
    wanted = names if columns is None else tuple(columns)
    check_known(path, list(wanted), names, "asked for")
    return pa.schema([schema.field(name) for name in names if name in wanted]), wanted


def _opened(path: Path) -> Any:
    """A pyarrow reader of the file, which closes it. Raises `ValueError` for another kind of file."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            from pyarrow import parquet

            return parquet.ParquetFile(path)
        from pyarrow import ipc

        return ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise ValueError(f"[data] {path} is no {path.suffix[1:].capitalize()} file: {error}") from None


def _batches(path: Path, columns: Sequence[str] | None, rows: int) -> Iterator[Any]:
    schema, _ = _binary_schema(path, columns)
    with _opened(path) as file:
        if hasattr(file, "iter_batches"):
            for group in range(file.num_row_groups):  # over all at once, pyarrow holds on to every one
                yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=schema.names)
        else:
            for i in range(file.num_record_batches):
                yield file.get_batch(i).select(schema.names)


# --- both -----------------------------------------------------------------------------------------


def rechunked(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """Record batches as tables of ``rows`` rows, the last one of what is left."""
    waiting: list[Any] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            count -= rows
            waiting = table.slice(rows).to_batches()
    if count:
        yield pa.Table.from_batches(waiting)


def arrow_column(name: str, array: Any) -> Column:
    """An Arrow array as a column. Text is looked up by the number of its distinct value: equal cells are one
    object, which takes a fraction of the memory and time where values repeat."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        combined = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if isinstance(combined, pa.ChunkedArray):
            combined = pa.concat_arrays(combined.chunks)
        coded = combined.dictionary_encode()
        values = np.array([*coded.dictionary.to_pylist(), None], object)
        codes: NDArray[Any] = pc.fill_null(coded.indices, len(values) - 1).to_numpy(zero_copy_only=False)
        return Column(name, "text", values[codes], str(array.type))
    chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    return as_columns(pa.table({name: chunked}), where="data").columns[0]
