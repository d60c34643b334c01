# SPDX-License-Identifier: Apache-2.0
"""Where predictions go, block by block: CSV, Parquet, or the rows of a JSON document.

A file appears under its name when the last row is written, never before. Rows of a document wait in a temporary
file, because a document that breaks off in the middle is none.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from hotloop.data.columns import Column
from hotloop.data.schema import shown
from hotloop.storage.files import replacing

_CSV = {"": ",", ".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
#: Whole numbers from here on are not exact in float64.
_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class Output:
    """One column of predictions: text as objects (n,), or numbers with as many digits as they are worth."""

    name: str
    values: npt.NDArray[Any]
    digits: int = 0  # 0: text

    def texts(self) -> list[str]:
        if not self.digits:
            return [str(value) for value in self.values]
        return [f"{value:.{self.digits}g}" for value in self.values.tolist()]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of output: columns that were kept from the table, and predictions."""

    kept: tuple[Column, ...]
    predicted: tuple[Output, ...]

    @property
    def rows(self) -> int:
        return len(self.predicted[0].values)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.kept] + [column.name for column in self.predicted]


class Sink(Protocol):
    """Takes blocks in order."""

    def write(self, block: Block) -> None: ...


@contextlib.contextmanager
def file_sink(path: str) -> Iterator[Sink]:
    """A file in the format of its suffix. Raises `ValueError` for another suffix, `ImportError`, `OSError`."""
    suffix = Path(path).suffix.lower()
    if suffix in _PARQUET:
        with replacing(path) as file, contextlib.closing(ParquetSink(file, path)) as sink:
            yield sink
    elif suffix in _CSV:
        with replacing(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            yield CsvSink(text, _CSV[suffix])
            text.flush()
            text.detach()  # the file is closed by its owner
    else:
        raise ValueError(f"[predict] cannot write {path!r}; allowed: .csv, .tsv, {', '.join(_PARQUET)}")


class CsvSink:
    """Lines of CSV; nothing that was kept is rounded."""

    def __init__(self, file: IO[str], separator: str = ",") -> None:
        self._writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        self._first = True

    def write(self, block: Block) -> None:
        if self._first:
            self._writer.writerow(block.names)
            self._first = False
        columns = [_kept_texts(column) for column in block.kept] + [c.texts() for c in block.predicted]
        self._writer.writerows(zip(*columns, strict=True))


class JsonSink:
    """One JSON object for each row and line, in a temporary file."""

    def __init__(self) -> None:
        self.file: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

    def write(self, block: Block) -> None:
        columns = [_kept_values(column) for column in block.kept]
        for column in block.predicted:
            texts = column.texts()
            columns.append([float(text) for text in texts] if column.digits else texts)
        names = block.names
        for row in zip(*columns, strict=True):
            self.file.write(
                json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False)
            )
            self.file.write("\n")


class ParquetSink:
    """A Parquet file; its schema is that of the first block."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise ImportError(
                f"[predict] writing {path} needs pyarrow; install the extra: pip install 'hotloop[data]'"
            ) from None
        self._parquet, self._file = parquet, file
        self._writer: Any = None

    def write(self, block: Block) -> None:
        import pyarrow as pa

        arrays = [_arrow(column) for column in block.kept]
        arrays += [pa.array(c.values, pa.string() if not c.digits else None) for c in block.predicted]
        if self._writer is None:
            schema = pa.schema([pa.field(n, a.type) for n, a in zip(block.names, arrays, strict=True)])
            self._writer = self._parquet.ParquetWriter(self._file, schema)
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _kept_texts(column: Column) -> list[str]:
    return ["" if value is None else str(value) for value in _kept_values(column)]


def _kept_values(column: Column) -> list[Any]:
    """Values as they came: whole numbers as int, dates as ISO text; None where missing."""
    if column.kind == "text":
        return list(column.values)
    _check_exact(column)
    missing = column.missing.tolist()
    if column.source.startswith(("date", "timestamp")):
        return [
            None if none else shown(column, v)
            for v, none in zip(column.values.tolist(), missing, strict=True)
        ]
    whole = _is_whole(column)
    return [
        None if none else int(v) if whole else v
        for v, none in zip(column.values.tolist(), missing, strict=True)
    ]


def _arrow(column: Column) -> Any:
    import pyarrow as pa

    if column.kind == "text":
        return pa.array(column.values, pa.string())
    if column.source.startswith(("date", "timestamp")):
        return pa.array(_kept_values(column), pa.string())
    _check_exact(column)
    if _is_whole(column):
        values = np.where(column.missing, 0, column.values).astype(np.int64)
        return pa.array(values, pa.int64(), mask=column.missing)
    return pa.array(column.values, pa.float64(), mask=column.missing)


def _is_whole(column: Column) -> bool:
    """Whole numbers by their dtype; by their values where the csv module read them, which knows no dtypes."""
    if column.source == "csv":
        present = column.values[~column.missing]
        return bool(np.all(present == np.floor(present)))
    return column.source.lower().startswith(("int", "uint"))


def _check_exact(column: Column) -> None:
    if _is_whole(column) and np.abs(np.nan_to_num(column.values)).max(initial=0) >= _EXACT:
        raise ValueError(
            f"[predict] --keep {column.name} holds whole numbers of 2**53 and more, which would be rounded; keep "
            "them as text in the table"
        )
