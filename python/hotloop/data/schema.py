# SPDX-License-Identifier: Apache-2.0
"""What a table consists of, column by column: for people who want to see that a file was read as they meant it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hotloop.data.columns import Column, Columns


@dataclass(frozen=True)
class ColumnSchema:
    """One column: its name, the type found, what it is used as, missing and distinct values, and the first one.

    found     the type in the file or frame: "int64", "string", "date32[day]", ...
    kind      "number" or "text", which is what is left of it in `Columns`
    missing   rows without a value
    distinct  different values, missing ones not counted
    example   the first value that is there, as text; "" if none is
    """

    name: str
    found: str
    kind: str
    missing: int
    distinct: int
    example: str


@dataclass(frozen=True)
class Schema:
    """The columns of a table, and what was guessed to read it. Prints as a table.

    >>> from hotloop.data.columns import as_columns
    >>> print(Schema.of(as_columns({"age": [31, 47], "town": ["Rome", None]}, where="example")))
    2 rows, 2 columns
    column  found   used as  missing  distinct  example
    age     int64   number   0        2         31
    town    object  text     1        1         Rome
    """

    rows: int
    columns: tuple[ColumnSchema, ...]
    guesses: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: Columns, guesses: tuple[str, ...] = ()) -> Schema:
        """The schema of a table; takes one sort of every column, 0.1 s for a million numbers."""
        return cls(table.rows, tuple(map(_column, table.columns)), guesses)

    def __str__(self) -> str:
        head = ("column", "found", "used as", "missing", "distinct", "example")
        lines = [
            head,
            *((c.name, c.found, c.kind, f"{c.missing}", f"{c.distinct}", c.example) for c in self.columns),
        ]
        cells = [[_short(cell, 28) for cell in line] for line in lines]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        first = f"{counted(self.rows, 'row')}, {counted(len(self.columns), 'column')}"
        guessed = [f"guessed: {', '.join(self.guesses)}"] if self.guesses else []
        return "\n".join([first, *table, *guessed])


def _column(column: Column) -> ColumnSchema:
    missing = column.missing
    present = column.values[~missing]
    distinct = len(set(present.tolist())) if column.kind == "text" else len(np.unique(present))
    return ColumnSchema(
        column.name, column.source, column.kind, int(missing.sum()), distinct,
        shown(column, present[0]) if len(present) else "",
    )  # fmt: skip


def shown(column: Column, value: object) -> str:
    """A value of a column as people write it: dates as dates, whole numbers without a point.

    >>> shown(Column("day", "number", np.zeros(1), "date32[day]"), 1.0)
    '1970-01-02'
    """
    if not isinstance(value, float):
        return str(value)
    if column.source.startswith(("date", "timestamp")):  # dates, and datetimes of any library
        moment = np.datetime64(round(value * 86400), "s")
        return str(moment.astype("M8[D]") if value == int(value) else moment)
    return f"{value:.6g}" if not value.is_integer() or abs(value) >= 1e15 else str(int(value))


def counted(n: int, what: str) -> str:
    """A count with its noun.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2000 rows')
    """
    return f"{n} {what}{'' if n == 1 else 's'}"


def _short(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
