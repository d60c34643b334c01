# SPDX-License-Identifier: Apache-2.0
"""A table as the columns that a preprocessor was fitted on: by name where there are names, else by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hotloop.data import cells
from hotloop.data.columns import Column, as_columns, is_frame, listed, near
from hotloop.data.preprocess.categories import factorize, numerals
from hotloop.data.preprocess.numbers import Source
from hotloop.errors import DTypeError, ShapeError

#: What a column was in training; "empty" had no value at all and is never looked at.
Kind = Literal["number", "text", "empty"]


@dataclass(frozen=True, eq=False)
class Aligned:
    """The rows of a table: its columns of numbers, then of text, each in the order of training."""

    rows: int
    numbers: Source
    texts: tuple[NDArray[Any], ...]


def aligned(
    features: Any, names: Sequence[str], kinds: Sequence[Kind], *, where: str, strict: bool
) -> Aligned:
    """Raises `ShapeError` with the first column that differs, `DTypeError` for text where numbers are due."""
    if not has_names(features) and "text" not in kinds and not isinstance(features, np.ma.MaskedArray):
        matrix = cells.matrix(features, where=where)
        if matrix.dtype.kind in "iufb" and "empty" not in kinds:  # no need to take it apart
            _check_count(matrix.shape[1], names, where)
            return Aligned(len(matrix), matrix, ())
    columns = as_columns(features, where=where)
    if has_names(features):
        _check_names(columns.names, names, where, strict)
        columns = columns.select(names, where=where)
    else:
        _check_count(len(columns.columns), names, where)
    pairs = list(zip(columns.columns, names, kinds, strict=True))
    return Aligned(
        columns.rows,
        [
            np.zeros(columns.rows) if kind == "empty" else as_number(c, name, where)
            for c, name, kind in pairs
            if kind != "text"
        ],
        tuple(as_text(c) for c, _, kind in pairs if kind == "text"),
    )


def has_names(features: Any) -> bool:
    """True if the order of the columns does not matter."""
    return is_frame(features) or isinstance(features, Mapping)


def as_number(column: Column, name: str, where: str) -> NDArray[np.float64]:
    """A column that was numbers in training; as text it must hold plain numerals or nothing."""
    if column.kind == "number":
        return column.values
    distinct, codes = factorize(column.values)
    values = numerals([*distinct, "0"])  # with a numeral among them, marks of missing numbers are enough
    if values is not None:
        return values[:-1][codes]
    bad = next(i for i, text in enumerate(distinct) if numerals([text, "0"]) is None)
    row = int(np.argmax(codes == bad))
    raise DTypeError(
        f"[{where}] column {name!r}, row {row}: {distinct[bad][:40]!r} is not a number; the column was numbers in "
        "training: write plain numerals such as 1200.5, or leave it empty"
    )


def as_text(column: Column) -> NDArray[Any]:
    """A column that was text in training; numbers are written as text would have them."""
    if column.kind == "text":
        return column.values
    distinct, inverse = np.unique(column.values, return_inverse=True)
    texts = list(map(cells.text_of, distinct.tolist()))
    if column.source.startswith("bool"):
        texts = [text and ("False", "True")[int(text)] for text in texts]
    return np.asarray(cells.objects(texts)[inverse])


def _check_count(count: int, names: Sequence[str], where: str) -> None:
    if count != len(names):
        raise ShapeError(
            f"[{where}] features has {count} columns; the model was trained with {len(names)}: {listed(names)}"
        )


def _check_names(got: Sequence[str], names: Sequence[str], where: str, strict: bool) -> None:
    extra = [name for name in got if name not in set(names)]
    for i, name in enumerate(names):
        if name not in got:
            place = f"got {got[i]!r} in its place" if i < len(got) else f"there are {len(got)} columns"
            raise ShapeError(
                f"[{where}] column {name!r}, feature {i} of the training table, is not there; {place}"
                f"{near(name, extra)} columns: {listed(got)}"
            )
    if extra and strict:
        at = list(got).index(extra[0])
        raise ShapeError(
            f"[{where}] column {at}, {extra[0]!r}, was not there in training ({len(extra)} such columns); drop it, "
            f"or ignore what is unknown with strict=False; expected: {listed(names)}"
        )
