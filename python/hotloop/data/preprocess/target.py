# SPDX-License-Identifier: Apache-2.0
"""The target: labels of named classes, or a quantity that the network sees centred and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hotloop.data import cells
from hotloop.data.columns import Column, Columns, as_column, as_columns, is_frame
from hotloop.data.preprocess import numbers
from hotloop.data.preprocess.categories import factorize, numerals
from hotloop.errors import DTypeError, LabelError, NonFiniteError, ShapeError

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Task = Literal["classification", "regression"]

#: More distinct whole numbers than this are taken as quantities, not as classes.
MAX_CLASSES = 20


@dataclass(frozen=True, eq=False)
class Target:
    """What is learnt, and how its values and the network's numbers become one another.

    class_values (k,): the numbers that the classes were in the table; None where labels are class indices
    or names. center and scale: of a regression.
    """

    task: Task | None = None
    name: str = "target"
    class_names: tuple[str, ...] = ()
    class_values: Float64 | None = None
    center: float = 0.0
    scale: float = 1.0

    def transform(self, target: Any) -> Array:
        """Labels int64 (n,), or scaled values float32 (n,). See `Preprocessor.transform_target`."""
        column = read(target, self.name, where="Preprocessor.transform_target")
        if self.task is None:
            raise ValueError("[Preprocessor.transform_target] the preprocessor was fitted without a target")
        if self.task == "regression":
            y = _values(column, self.name)
            with np.errstate(over="ignore"):
                return ((y - self.center) / self.scale).astype(np.float32)
        if column.kind == "text":
            return self.labels_of([text.strip() for text in column.values.tolist()])
        if self.class_values is None:
            return indices(column.values, len(self.class_names), self.name)
        return self._labels_of_values(column.values)

    def inverse(self, prediction: Any) -> Float64:
        """(n,) or (n, 1) of a regression in the target's unit, float64 (n,)."""
        values = np.asarray(prediction, np.float64).reshape(-1)
        return np.asarray(values * self.scale + self.center, np.float64)

    def labels_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Labels int64 (n,) of class names. See `Preprocessor.labels_of`."""
        number = {name: label for label, name in enumerate(self.class_names)}
        for row, name in enumerate(names):
            if name not in number:
                raise LabelError(
                    f"[Preprocessor] row {row} has class {name!r}, which the model does not know; "
                    f"allowed: {', '.join(self.class_names)[:200]}"
                )
        return np.array([number[name] for name in names], np.int64)

    def _labels_of_values(self, values: Float64) -> NDArray[np.int64]:
        assert self.class_values is not None
        labels = np.minimum(np.searchsorted(self.class_values, values), len(self.class_values) - 1)
        bad = np.flatnonzero(self.class_values[labels] != values)
        if len(bad):
            raise LabelError(
                f"[Preprocessor] {self.name}[{bad[0]}] = {values[bad[0]]:g} is not a class of the training rows "
                f"({len(bad)} bad values in {len(values)}); allowed: {', '.join(self.class_names)[:200]}"
            )
        return labels.astype(np.int64)


def learn(
    column: Column,
    *,
    name: str,
    task: Task | Literal["auto"],
    class_names: Sequence[str],
    scale: numbers.Scale,
) -> Target:
    """Learn a target that `read` gave.

    "auto": text and booleans are classes; so are whole numbers with at most `MAX_CLASSES` distinct values,
    each twice or more on average, unless their dtype is floating; everything else is a quantity.
    Raises `LabelError`, `DTypeError`, `NonFiniteError`.
    """
    if task == "auto":
        task = "classification" if class_names or is_classes(column) else "regression"
    if task == "regression":
        if column.kind == "text":
            row = next(i for i, text in enumerate(column.values) if numerals([text]) is None)
            raise DTypeError(
                f"[Preprocessor.fit] {name}[{row}] = {column.values[row][:40]!r} is text; regression needs numbers: "
                "convert the column, or choose task='classification'"
            )
        learnt = numbers.learn(name, _values(column, name), missing="refuse", scale=scale)
        if learnt.scale == 0:  # a constant: learn it as 0, give it back exactly
            return Target(task, name, center=learnt.center)
        return Target(task, name, center=learnt.center, scale=learnt.scale)
    if class_names:
        target = Target(task, name, tuple(class_names))
        target.transform(column)  # refuses what is no such class
        return target
    if column.kind == "text":
        return Target(task, name, tuple(sorted({text.strip() for text in column.values.tolist()})))
    values = numbers.distinct(column.values)
    names = ("False", "True") if column.source.startswith("bool") and len(values) == 2 else None
    return Target(task, name, names or tuple(str(cells.text_of(v)) for v in values.tolist()), values)


def read(target: Any, name: str, *, where: str) -> Column:
    """A target as one column, text that is all numerals as numbers. Raises `NonFiniteError` with the first
    row that is missing or infinite, `ShapeError` unless it is (n,) or a frame of one column."""
    if isinstance(target, Column):
        column = target
    elif is_frame(target):
        table: Columns = as_columns(target, where=where)
        if len(table.columns) != 1:
            raise ShapeError(
                f"[{where}] the target must be one column, got {len(table.columns)}: {table.names}"
            )
        column = table.columns[0]
    else:
        shape = np.shape(target) if isinstance(target, (np.ndarray, np.generic)) else None
        if shape is not None and len(shape) != 1:
            raise ShapeError(f"[{where}] target must have shape (n,), got {shape}")
        column = as_column(name, target, where=where)
    if column.kind == "text" and len(column.values):
        distinct, codes = factorize(column.values)
        parsed = numerals(distinct)
        if parsed is not None:
            column = Column(column.name, "number", parsed[codes], column.source)
        elif any(text is not None and not text.strip() for text in distinct):
            blank = np.array(
                [None if text is None or not text.strip() else text for text in distinct], object
            )
            column = Column(column.name, "text", blank[codes], column.source)
    bad = column.missing if column.kind == "text" else ~np.isfinite(column.values)
    if bad.any():
        row, count = int(np.argmax(bad)), int(np.count_nonzero(bad))
        what = column.values[row] if column.kind == "number" and not column.missing[row] else "missing"
        raise NonFiniteError(
            f"[{where}] {name}[{row}] is {what} ({count} bad values in {len(bad)}); drop those rows: there is "
            "nothing to learn from them"
        )
    return column


def indices(values: Float64, n_classes: int, name: str) -> NDArray[np.int64]:
    """Class indices int64 (n,). Raises `DTypeError` for what is not whole, `LabelError` outside the classes."""
    fraction = np.flatnonzero(values != np.floor(values))
    if len(fraction):
        raise DTypeError(
            f"[Preprocessor] labels must be integers or class names, got {name}[{fraction[0]}] = "
            f"{values[fraction[0]]:g}"
        )
    bad = np.flatnonzero((values < 0) | (values >= n_classes))
    if len(bad):
        raise LabelError(
            f"[Preprocessor] {name}[{bad[0]}] = {values[bad[0]]:g} is not a class index "
            f"(expected 0 <= label < {n_classes}; {len(bad)} bad values in {len(values)})"
        )
    return values.astype(np.int64)


def is_classes(column: Column) -> bool:
    """Whether a target whose task nobody named is classes; see `learn`."""
    source = column.source.lower()
    if column.kind == "text" or source.startswith("bool"):
        return True
    if "float" in source or "double" in source or not (column.values == np.floor(column.values)).all():
        return False
    count = len(numbers.distinct(column.values))
    return count <= MAX_CLASSES and 2 * count <= len(column.values)


def _values(column: Column, name: str) -> Float64:
    if column.kind == "text":
        raise DTypeError(f"[Preprocessor] {name} is text; the model was trained on numbers")
    return column.values
