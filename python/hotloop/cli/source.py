# SPDX-License-Identifier: Apache-2.0
"""Data for the commands: the table to train on, its split, and a file block by block for a trained model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hotloop.cli.console import note
from hotloop.cli.options import DataOptions
from hotloop.data.columns import Column, Columns, listed, near
from hotloop.data.preprocess import Preprocessor
from hotloop.data.preprocess.target import Target, learn
from hotloop.data.preprocess.target import read as read_target
from hotloop.data.split import Split, split
from hotloop.data.table_files import read, read_blocks
from hotloop.data.tables import BUNDLED
from hotloop.errors import HotloopError

Array = npt.NDArray[Any]
T = TypeVar("T")

#: Rows and values of a block: large enough for the kernels, small beside any memory.
_ROWS, _VALUES = 1 << 16, 1 << 22


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """Features and the target (n,): labels into its classes, or values; and what the rows are split by."""

    name: str
    features: Columns
    column: Column  # the target as it came
    y: Array
    target: Target  # of a classification, of all rows: a class may be rare
    by: Column | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.target.class_names

    @property
    def task(self) -> str:
        return str(self.target.task)


# --- to train on ------------------------------------------------------------------------------------


def training_table(data: str, options: DataOptions) -> TrainingTable:
    """The table that the options describe. Raises what `hotloop.data.read` raises, and `ValueError`."""
    table: Columns = read(data)
    name = target_name(data, table, options.target)
    by = options.split_by_group or options.split_by_time
    if options.split_by_group and options.split_by_time:
        raise ValueError("[cli] --split-by-group and --split-by-time exclude one another; choose one")
    ignored = columns_named(table, options.ignore, "--ignore")
    if by is not None:
        columns_named(table, [by], "--split-by-group" if options.split_by_group else "--split-by-time")
    table = _with_target(table, name, drop=options.drop_missing_target)
    features = table.drop(*{name, *ignored, *([by] if by else [])})
    if not features.columns:
        raise ValueError(f"[cli] {data} has no feature columns besides the target {name!r}")
    column = read_target(table[name], name, where="cli")
    target = learn(column, name=name, task=options.task, class_names=(), scale="standard")
    y = target.transform(column) if target.task == "classification" else column.values
    return TrainingTable(Path(data).stem, features, column, y, target, None if by is None else table[by])


def split_table(table: TrainingTable, options: DataOptions, *, seed: int) -> Split:
    """Training, validation and test rows: evenly by class, by group or by time."""
    if table.by is not None and options.split_by_time:
        return split(table.features, table.y, stratify=False, seed=seed, time=table.by.values)
    groups = None if table.by is None else table.by.values
    return split(table.features, table.y, stratify=table.task == "classification", seed=seed, groups=groups)


def target_name(data: str, table: Columns, name: str | None) -> str:
    """The column that is the target."""
    name = name or known_target(data)
    if name is None:
        raise ValueError(
            f"[data] {data} needs the column to learn: target (--target); columns: {listed(table.names)}"
        )
    return columns_named(table, [name], "--target")[0]


def known_target(data: str) -> str | None:
    """The target of data that has one by itself."""
    return "target" if data in BUNDLED else "y" if data.lower().endswith(".npz") else None


def columns_named(table: Columns, given: Sequence[str], option: str) -> list[str]:
    """The columns that an option names, alone or with commas between. Raises `ValueError` for others."""
    found: list[str] = []
    for text in given:
        names = [text] if text in table.names else [part.strip() for part in text.split(",")]
        for name in names:
            if name not in table.names:
                hint = f"{near(name, table.names)} columns: {listed(table.names)}"
                raise ValueError(f"[cli] {option} names {name!r}, which is no column{hint}")
        found += names
    return found


def columns_of(data: str, given: Sequence[str]) -> list[str]:
    """The columns of a file that ``--keep`` names; reads its first rows."""
    first = next(iter(read_blocks(data, rows=1)), None)
    if first is None:
        raise ValueError(f"[data] {data} has no rows; at least one is needed")
    return columns_named(first, given, "--keep")


def _with_target(table: Columns, name: str, *, drop: bool) -> Columns:
    missing = table[name].missing
    if not missing.any():
        return table
    if not drop:
        raise ValueError(
            f"[cli] the target {name!r} is missing in row {int(np.argmax(missing)) + 1} ({missing.sum()} of "
            f"{table.rows} rows); leave those rows out with --drop-missing-target, or choose another --target"
        )
    note(f"{missing.sum()} of {table.rows} rows have no target {name!r} and are left out")
    return table.take(~missing)


# --- for a trained model ----------------------------------------------------------------------------


def blocks(
    data: str, prepare: Preprocessor, more: Mapping[str, str | None] | None = None
) -> Iterator[tuple[int, Columns]]:
    """The rows of a table as blocks of columns, each with the number of rows before it.

    ``more``: columns that are wanted beside the model's features; "number", "text", or None for what is there.
    """
    kinds: dict[str, str] = {
        n: k for n, k in zip(prepare.feature_names, prepare.kinds, strict=True) if k != "empty"
    }
    extra = {name: kind for name, kind in (more or {}).items() if name not in prepare.feature_names}
    names = [*prepare.feature_names, *extra]
    rows = max(min(_ROWS, _VALUES // len(names)), 1)
    start = 0
    kinds |= {name: kind for name, kind in extra.items() if kind is not None}
    for block in read_blocks(data, rows=rows, columns=names, kinds=kinds):
        yield start, block
        start += block.rows
    if not start:
        raise ValueError(f"[data] {data} has no rows; at least one is needed")


def located(work: Callable[[Columns], T], block: Columns, data: str, start: int) -> T:
    """``work(block)``; what it refuses is reported with the number of the row in the file, from 1."""
    try:
        return work(block)
    except HotloopError as error:
        row, text = _first_refused(work, block, str(error))
        text = re.sub(r"\b\w+\[0(?:, \d+)?\]", "the value", text.partition("] ")[2] or text)
        text = text.removeprefix("row 0 has ")  # of the block of that row alone
        raise type(error)(f"[data] {data}, row {start + row + 1}: {text}") from None


def _first_refused(work: Callable[[Columns], Any], block: Columns, text: str) -> tuple[int, str]:
    """The first row that is refused alone, by halving, and why; rows before it are fine together."""
    low, high = 0, block.rows  # rows [0, low) are fine, [0, high) are not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            work(block.take(slice(low, middle)))
            low = middle
        except HotloopError as error:
            high, text = middle, str(error)
    try:
        work(block.take(slice(low, high)))
    except HotloopError as error:
        text = str(error)
    return low, text
