# SPDX-License-Identifier: Apache-2.0
"""Data for the commands: a table with its target from a file or by name, its split, and blocks of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from hotloop.cli.options import DataOptions
from hotloop.data.split import Split, split
from hotloop.data.tables import read_table

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """Features and the target (n,): labels into ``class_names``, or values."""

    name: str
    task: str
    features: Any
    feature_names: tuple[str, ...]
    target: Array
    target_name: str
    class_names: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.target)

    @property
    def n_features(self) -> int:
        return len(self.feature_names)


def training_table(data: str, columns: DataOptions) -> TrainingTable:
    """The table to train on. Raises what `hotloop.data.read_table` raises."""
    table = read_table(data, target=columns.target, task=None if columns.task == "auto" else columns.task)
    assert table.target is not None and table.task is not None
    return TrainingTable(
        table.name,
        table.task,
        table.features,
        table.feature_names,
        table.target,
        table.target_name,
        table.class_names,
    )


def split_table(table: TrainingTable, columns: DataOptions, *, seed: int) -> Split:
    """Training, validation and test rows."""
    return split(table.features, table.target, stratify=table.task == "classification", seed=seed)


def blocks(
    data: str, names: Sequence[str], extra: Sequence[str] = ()
) -> Iterator[tuple[Any, dict[str, list[str]]]]:
    """The features of a file block by block."""
    table = read_table(data, features=names, need_target=False)
    yield table.features, {}
