# SPDX-License-Identifier: Apache-2.0
"""The rules of `hotloop.check` that look at features: each takes a table and yields what is wrong with it.

Rules about what the preprocessor does something about (missing, constant, spelling, ...) are its own, see
preprocess/report.py; here is what it cannot mend. Thresholds stand beside their reasons, and in docs/check.md.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hotloop.data.columns import Column, Columns
from hotloop.data.preprocess.categories import clean, factorize, numerals

Codes = npt.NDArray[np.intp]
Severity = Literal["error", "warning", "note"]

#: Beyond this, differences and squares leave float64: as good as infinite.
LARGEST = 1e300
#: Columns of fewer rows are not called identifiers: thirty different numbers are no surprise.
_ID_ROWS = 50
#: Text with this share of different values names rows, or is prose; neither is a category.
_ID_TEXT = 0.95
_ID_NAME = re.compile(r"(^|_|\b)(id|ids|uuid|guid|index|idx|key|nr|no|number|row)$", re.IGNORECASE)
#: "3.5 kg", "$1,200", "85 %": a number, with what a number column could not hold around it.
_DRESSED = re.compile(r"\s*[^\w\s]{0,2}\s*[-+]?\d[\d.,' ]*\s*[^\d\s]{0,6}\s*")
#: Rows on which pairs of columns are compared before all rows are.
_SAMPLE = 4096


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong, or worth knowing.

    rule      its name, see docs/check.md
    severity  "error": training would be refused or mean nothing; "warning": look at it before you train;
              "note": taken care of, or a matter of taste
    columns   the columns it is about; none for whole rows
    rows      how many rows it is about
    text      a sentence: what was found, and what is done or should be done
    """

    rule: str
    severity: Severity
    columns: tuple[str, ...]
    rows: int
    text: str

    def __str__(self) -> str:
        return f"{', '.join(self.columns)}: {self.text}" if self.columns else self.text


class Facts:
    """A table, and the distinct texts of its columns with the number (n,) of each row's: found once for all rules."""

    def __init__(self, table: Columns) -> None:
        self.table = table
        self.texts: dict[str, tuple[list[Any], Codes]] = {
            column.name: factorize(column.values) for column in table.columns if column.kind == "text"
        }


def infinite(facts: Facts) -> Iterator[Issue]:
    """Infinity in a column of numbers: the preprocessor refuses it, because no scale can be learnt from it."""
    for column in facts.table.columns:
        bad = np.flatnonzero(is_infinite(column))
        if len(bad):
            text = (
                f"{len(bad)} infinite or beyond {LARGEST:g}, first {column.values[bad[0]]:g} in row {bad[0]}; put in "
                "what is meant, or NaN"
            )
            yield Issue("infinite", "error", (column.name,), len(bad), text)


def is_infinite(column: Column) -> npt.NDArray[np.bool_]:
    """Where a column (n,) holds a number that cannot be calculated with."""
    if column.kind == "text":
        return np.zeros(len(column.values), bool)
    return np.asarray(np.abs(column.values) > LARGEST)


def identifiers(facts: Facts) -> Iterator[Issue]:
    """A column with a value of its own in every row: a network learns it by heart and nothing from it."""
    for column in facts.table.columns:
        present = column.values[~column.missing]
        if len(present) < _ID_ROWS:
            continue
        if column.kind == "text":
            distinct = len(set(facts.texts[column.name][0]) - {None})
            if distinct >= _ID_TEXT * len(present):
                text = f"{distinct} different texts in {len(present)} rows: names of rows, or prose; drop it"
                yield Issue("identifier", "warning", (column.name,), len(present), text)
        elif _numbers_rows(column, present):
            text = f"a different whole number in each of {len(present)} rows: it numbers them; drop it"
            yield Issue("identifier", "warning", (column.name,), len(present), text)


def _numbers_rows(column: Column, present: npt.NDArray[Any]) -> bool:
    """Whole, all different, and either dense, in order, or called so; a date is none."""
    whole = np.isfinite(present).all() and (present == np.floor(present)).all()
    if column.source.startswith(("date", "time")) or not whole:
        return False
    steps = np.diff(np.sort(present))
    if not (steps > 0).all():
        return False
    dense = present.max() - present.min() < 2 * len(present)
    in_order = bool((np.diff(present) > 0).all())
    return bool(dense or in_order or _ID_NAME.search(column.name))


def mixed_types(facts: Facts) -> Iterator[Issue]:
    """Text among which numerals stand, or numbers with units or thousands separators: read as categories."""
    for column in facts.table.columns:
        if column.kind != "text":
            continue
        distinct, codes = facts.texts[column.name]
        if numerals(distinct) is not None:
            continue  # nothing but numerals: the preprocessor reads them
        counts = np.bincount(codes, minlength=len(distinct))
        kinds: dict[str, list[int]] = {"plain": [], "dressed": [], "text": []}
        for i, cell in enumerate(distinct):
            if cell is not None and clean(cell):
                kinds[_kind_of(cell)].append(i)
        plain, dressed, text = (int(counts[kind].sum()) for kind in kinds.values())
        total = plain + dressed + text
        if plain and (dressed or text):
            other = distinct[(kinds["text"] or kinds["dressed"])[0]]
            row = int(np.argmax(column.values == other))
            found = (
                f"{plain} of {total} are numbers, others are text, first {other[:30]!r} in row {row}; all are taken "
                "as categories: repair the text, or mark it as missing"
            )
            yield Issue("mixed_types", "warning", (column.name,), total - plain, found)
        elif dressed >= 0.9 * total > 0 and len(kinds["dressed"]) > 8:  # few of them are levels, as "5 mg"
            example = distinct[kinds["dressed"][0]]
            found = f"numbers with something around them, such as {example[:30]!r}, are taken as categories; strip it"
            yield Issue("mixed_types", "warning", (column.name,), dressed, found)


def _kind_of(cell: str) -> str:
    if numerals([cell]) is not None:
        return "plain"
    return "dressed" if _DRESSED.fullmatch(cell) else "text"


def duplicate_columns(facts: Facts) -> Iterator[Issue]:
    """Columns that say the same: equal values, the same categories under other names, or a multiple."""
    alike: dict[bytes, list[Column]] = {}
    for column in facts.table.columns:
        alike.setdefault(_digest(facts, column, _SAMPLE), []).append(column)
    first: dict[bytes, Column] = {}
    for column in itertools.chain(*(group for group in alike.values() if len(group) > 1)):
        other = first.setdefault(_digest(facts, column, len(column.values)), column)
        if other is not column and not _is_constant(facts, column):
            same = column.kind == "number" or np.array_equal(other.values, column.values)
            how = "the same values in every row as" if same else "the same categories, by other names, as"
            text = f"{how} {other.name!r}; drop one of them"
            yield Issue("duplicate_columns", "warning", (column.name,), len(column.values), text)
    yield from _multiples(facts)


def _digest(facts: Facts, column: Column, rows: int) -> bytes:
    """A hash of the first rows: of numbers their values, of text which rows are equal to which."""
    if column.kind == "text":
        words = facts.texts[column.name][1][:rows].astype(np.int64).tobytes()
    else:
        values = column.values[:rows] + 0.0  # -0 becomes 0
        values[np.isnan(values)] = np.nan  # of all NaNs one
        words = values.tobytes()
    return hashlib.blake2b(words, digest_size=16, key=column.kind.encode()).digest()


def _is_constant(facts: Facts, column: Column) -> bool:
    """Whether a column says nothing; what it is equal to is no matter then."""
    if column.kind == "text":
        return len(facts.texts[column.name][0]) < 2
    return bool((column.values == column.values[0]).all() or column.missing.all())


def _multiples(facts: Facts) -> Iterator[Issue]:
    """Columns of numbers that are a straight line of another to nine digits, such as inches of centimetres."""
    n = facts.table.rows
    columns = [c for c in facts.table.columns if c.kind == "number" and not is_infinite(c).any()]
    if not 2 <= len(columns) <= 2000 or n < 3:
        return
    rows = np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.int64))
    z = np.stack([_standardised(c.values[rows]) for c in columns])
    near = np.argwhere(np.triu(np.abs(z @ z.T) > 1 - 1e-9, 1))
    told: set[int] = set()
    for a, b in near.tolist():
        if a in told or b in told:
            continue
        line = _line(columns[a], columns[b])
        if line is not None and not np.array_equal(columns[a].values, columns[b].values, equal_nan=True):
            told.add(b)
            text = f"{line[0]:.6g} times {columns[a].name!r}{line[1]:+.6g} in every row; drop one of them"
            yield Issue("duplicate_columns", "warning", (columns[b].name,), n, text)


def _standardised(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    missing = np.isnan(values)
    if missing.all():
        return np.zeros(len(values))
    z = np.where(missing, 0.0, values - values[~missing].mean())
    largest = np.abs(z).max()
    if largest == 0:
        return z
    z = z / largest  # its square stays in float64
    return np.asarray(z / np.linalg.norm(z))


def _line(a: Column, b: Column) -> tuple[float, float] | None:
    """(slope, offset) with b = slope a + offset to nine digits in every row, or None."""
    if not np.array_equal(a.missing, b.missing):
        return None
    x, y = a.values[~a.missing], b.values[~b.missing]
    dx, dy = x - x.mean(), y - y.mean()
    wide, high = np.abs(dx).max(initial=0), np.abs(dy).max(initial=0)
    if wide == 0 or high == 0:
        return None
    dx, dy = dx / wide, dy / high
    slope = float(dx @ dy / (dx @ dx))
    if np.abs(dy - slope * dx).max() > 1e-9:
        return None
    with np.errstate(over="ignore"):
        slope = slope * high / wide
        return slope, float(y.mean() - slope * x.mean())
