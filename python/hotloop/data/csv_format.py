# SPDX-License-Identifier: Apache-2.0
"""How a CSV file is written, found out from its beginning, and what is wrong with one, by line.

pyarrow reads fast and says little about a file that it cannot read. What it trips over is looked for once more
here, with the csv module, in files that have failed already.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hotloop.data.columns import near
from hotloop.errors import DTypeError, ShapeError

_SAMPLE_BYTES = 1 << 16
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_BYTE_ORDER = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_DECIMAL = re.compile(r"\s*[-+]?\d*([.,])\d+(?:[eE][-+]?\d+)?\s*")


def _variants(mark: str) -> set[str]:
    return {mark, mark.lower(), mark.upper(), mark.capitalize()}


#: Cells that say that a value is missing, in any case; blanks around them do not count.
MISSING = tuple(
    sorted(set().union(*map(_variants, ("", "NA", "N/A", "#N/A", "NaN", "null", "None", "?", "-"))))
)


@dataclass(frozen=True)
class CsvFormat:
    """Separator, decimal mark, encoding and header of a file, and which of them are guesses, for reports."""

    separator: str
    decimal: str
    encoding: str
    header: tuple[str, ...]  # as it stands in the file, blanks included
    guesses: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns: the header without the blanks around them."""
        return tuple(name.strip() for name in self.header)


def find_format(path: Path, *, separator: str | None, decimal: str | None, encoding: str) -> CsvFormat:
    """The format of a file; None asks for a guess from its first 64 KiB.

    Raises `OSError`, and `ValueError` or `ShapeError` for an empty file, bytes of another encoding, and a
    header that has no names, numbers for names, or a name twice.
    """
    guesses = []
    text = _sample(path, encoding)
    if text.startswith("\ufeff"):
        text = text[1:]
        guesses.append("a byte order mark, left out")
    lines = text.splitlines(keepends=True)
    if len(lines) > 1 and path.stat().st_size > _SAMPLE_BYTES:
        del lines[-1]  # cut off by the end of the sample
    if separator is None:
        separator = _separator(lines, "\t" if path.suffix.lower() == ".tsv" else ",")
        if separator != ",":
            guesses.append(f"{_SEPARATORS[separator]} between values")
    records = list(itertools.islice((r for r in csv.reader(lines, delimiter=separator) if r), 200))
    if decimal is None:
        decimal = _decimal(records[1:]) if separator != "," else "."
        if decimal == ",":
            guesses.append("decimal commas")
    header = tuple(records[0]) if records else ()
    _check_header(path, [name.strip() for name in header])
    return CsvFormat(separator, decimal, encoding, header, tuple(guesses))


def _sample(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        raw = file.read(_SAMPLE_BYTES)
    for mark, name in _BYTE_ORDER.items():
        if raw.startswith(mark) and encoding.replace("_", "-").lower() != name:
            raise ValueError(f"[data] {path} is written in {name.upper()}; read it with encoding={name!r}")
    try:
        return codecs.getincrementaldecoder(encoding)().decode(raw)
    except UnicodeDecodeError:
        raise encoding_error(path, encoding) from None
    except LookupError:
        raise ValueError(f"[data] encoding={encoding!r} is not known; such as 'utf-8' or 'latin-1'") from None


def _separator(lines: list[str], otherwise: str) -> str:
    """The separator that gives the most lines the width of the first; of two, the one that gives more columns."""

    def fitness(separator: str) -> tuple[float, int]:
        widths = [len(r) for r in itertools.islice(csv.reader(lines, delimiter=separator), 50) if r]
        if not widths or widths[0] < 2:
            return 0.0, 0
        return round(sum(w == widths[0] for w in widths) / len(widths), 1), widths[0]

    best = max(_SEPARATORS, key=fitness)
    return best if fitness(best)[1] > 1 else otherwise


def _decimal(records: list[list[str]]) -> str:
    marks = [found[1] for record in records for cell in record if (found := _DECIMAL.fullmatch(cell))]
    return "," if marks and "." not in marks else "."


def _check_header(path: Path, names: list[str]) -> None:
    if not any(names):
        raise ValueError(f"[data] {path} is empty; the first line must name the columns")
    if all(_is_number(name, ".") for name in names):
        raise ValueError(
            f"[data] {path} begins with numbers ({', '.join(names[:5])}); the first line must name the columns"
        )
    for i, name in enumerate(names):
        if not name:
            raise ValueError(
                f"[data] {path}: column {i + 1} of {len(names)} has no name; name it in the first line, or leave it "
                "out where it only numbers the rows (pandas: to_csv(index=False))"
            )
        if name in names[:i]:
            raise ShapeError(
                f"[data] {path} names a column twice: {name!r}, columns {names.index(name) + 1} and {i + 1}; "
                "rename one of them"
            )


# --- what is wrong, and where ---------------------------------------------------------------------


def records(path: Path, form: CsvFormat) -> Iterator[tuple[int, list[str]]]:
    """The line and the cells of every record but the header; blank lines are skipped."""
    encoding = "utf-8-sig" if form.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else form.encoding
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=form.separator)
        found = ((reader.line_num, record) for record in reader if record)
        next(found, None)
        yield from found


def explained(
    path: Path, form: CsvFormat, numbers: Mapping[str, tuple[str, ...]], error: Exception
) -> Exception:
    """What is wrong with a file that could not be read: its first fault by line, else what pyarrow said.

    ``numbers``: the columns that must hold numbers, and the marks of missing values in them.
    """
    names = form.names
    try:
        for line, record in records(path, form):
            if len(record) != len(names):
                text = form.separator.join(record)
                return ShapeError(
                    f"[data] {path}, line {line}: {len(record)} value{'s' * (len(record) != 1)} for {len(names)} "
                    f"columns: {text[:60]!r}; "
                    f"quote values that hold a {_SEPARATORS.get(form.separator, 'separator')}, or repair the line"
                )
            for name, marks in numbers.items():
                cell = record[names.index(name)].strip()
                if cell not in marks and not _is_number(cell, form.decimal):
                    return not_a_number(path, line, name, cell)
    except UnicodeDecodeError:
        return encoding_error(path, form.encoding)
    except csv.Error as other:
        error = other
    return ValueError(f"[data] {path} cannot be read as CSV: {error}")


def not_a_number(path: Path, line: int, name: str, cell: str) -> DTypeError:
    """The error for text in a column of numbers."""
    return DTypeError(
        f"[data] {path}, line {line}, column {name!r}: {cell[:40]!r} is not a number, which the column holds by "
        f"its first rows or by kinds=; repair it, or read the column as text: kinds={{{name!r}: 'text'}}"
    )


def encoding_error(path: Path, encoding: str) -> ValueError:
    """The error for bytes that do not belong to the encoding, with the line of the first."""
    place = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                place = f", line {number}: byte 0x{line[error.start]:02x}"
                break
    return ValueError(
        f"[data] {path}{place} is not {encoding.upper()}; if the file comes from an older Windows or spreadsheet, read "
        "it with encoding='latin-1' (or 'cp1252'), else save it as UTF-8"
    )


def no_rows(path: object) -> ValueError:
    """The error for a table without rows."""
    return ValueError(f"[data] {path} has a header and no rows; at least one is needed")


def check_known(path: Path, wanted: Iterator[str] | list[str], names: tuple[str, ...], what: str) -> None:
    """Raises `ShapeError` for the first wanted name that is no column of the file."""
    for name in wanted:
        if name not in names:
            listed = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
            raise ShapeError(
                f"[data] {path} has no column {name!r} ({what}){near(name, names)} Columns: {listed}"
            )


def _is_number(text: str, decimal: str) -> bool:
    try:
        float(text if decimal == "." else text.replace(decimal, "."))
    except ValueError:
        return False
    return "_" not in text  # Python's float reads 1_000
