# SPDX-License-Identifier: Apache-2.0
"""Tables from files: numeric CSV with a header, NPZ, and the small data sets that scikit-learn brings along.

No data-frame library: a model takes numbers, and what is not a number should be reported by line and column.
The task follows the target: text is classification; so are whole numbers with at most 20 distinct values,
each twice or more on average; everything else is regression. An NPZ target of floating dtype is regression.
"""

from __future__ import annotations

import csv
import difflib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hotloop.errors import DTypeError, NonFiniteError, ShapeError

Array = npt.NDArray[Any]
Task = Literal["classification", "regression"]

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")
#: More distinct whole numbers than this are taken as quantities, not as classes.
MAX_CLASSES = 20
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers, and their target where there is one.

    features (n, d) float64; target (n,): int64 labels into ``class_names`` for classification, float64
    values for regression, None if it was not asked for.
    """

    name: str
    features: npt.NDArray[np.float64]
    feature_names: tuple[str, ...]
    target: Array | None = None
    target_name: str = "target"
    class_names: tuple[str, ...] = ()
    task: Task | None = None


def read_table(
    source: str,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    need_target: bool = True,
    task: Task | None = None,
) -> Table:
    """Read a CSV (.csv, .tsv, .txt) or NPZ file, or a bundled data set by name.

    Args:
        source: path, or one of `BUNDLED`.
        target: the column (or NPZ array) to learn; NPZ and bundled data know it: "y".
        features: the columns to read, in this order; None: all but the target.
        need_target: False reads features alone, and ignores columns that were not asked for.
        task: None decides by the rule at the top of this file.

    Raises `OSError`, `ValueError` (unknown, duplicate or missing columns, an empty file), `ShapeError`
    (ragged rows), `DTypeError` (not a number), `NonFiniteError` (missing values) and, for bundled names,
    `ImportError` if scikit-learn is absent.

    >>> read_table("iris").class_names  # doctest: +SKIP
    ('setosa', 'versicolor', 'virginica')
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if not suffix and source in BUNDLED:
        return _read_bundled(source, features, task)
    if suffix in (".csv", ".tsv", ".txt"):
        return _read_csv(path, target, features, need_target, task)
    if suffix == ".npz":
        return _read_npz(path, target or "y", features, need_target, task)
    raise ValueError(
        f"[data] cannot read {source!r}; allowed: a .csv, .tsv, .txt or .npz file, or one of {', '.join(BUNDLED)}"
    )


def classify(
    values: Array, *, task: Task | None = None, floating: bool = False
) -> tuple[Task, Array, tuple[str, ...]]:
    """The task of a target, the target as labels or values, and the class names.

    ``values`` are numbers or text (n,); ``floating`` says that their type alone means quantities.

    >>> classify(np.array(["b", "a", "b"]))
    ('classification', array([1, 0, 1]), ('a', 'b'))
    """
    text = values.dtype.kind in "USOb"
    if task is None:
        distinct = len(np.unique(values))
        whole = not text and not floating and bool(np.all(values == np.floor(values)))
        few = distinct <= MAX_CLASSES and 2 * distinct <= len(values)
        task = "classification" if text or (whole and few) else "regression"
    if task == "regression":
        if text:
            raise DTypeError("[data] the target is text; regression needs numbers")
        return task, values.astype(np.float64), ()
    classes, labels = np.unique(values, return_inverse=True)
    return task, labels.astype(np.int64), tuple(_class_name(value) for value in classes)


def _class_name(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


# --- CSV ------------------------------------------------------------------------------------------


def _read_csv(
    path: Path, target: str | None, features: Sequence[str] | None, need_target: bool, task: Task | None
) -> Table:
    header, rows, lines = _csv_rows(path)
    wanted = list(features) if features is not None else [name for name in header if name != target]
    for name in [*wanted, *([target] if target is not None and need_target else [])]:
        _check_column(path, name, header)
    if need_target and target is None:
        raise ValueError(
            f"[data] {path} needs the column to learn: target (--target); columns: {_listed(header)}"
        )
    if not wanted:
        raise ValueError(f"[data] {path} has no feature columns besides the target {target!r}")
    matrix = np.empty((len(rows), len(wanted)))
    for i, name in enumerate(wanted):
        column = header.index(name)
        matrix[:, i] = _numbers(path, name, [row[column] for row in rows], lines)
    if not need_target or target is None:
        return Table(path.stem, matrix, tuple(wanted))
    column = header.index(target)
    values = _target(path, target, [row[column] for row in rows], lines)
    task, labels, class_names = classify(values, task=task)
    return Table(path.stem, matrix, tuple(wanted), labels, target, class_names, task)


def _csv_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows as stripped text, and the line of each row in the file. Blank lines are skipped."""
    rows: list[list[str]] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ShapeError(
                        f"[data] {path}, line {reader.line_num}: {len(row)} values for {len(header)} columns"
                    )
                rows.append([value.strip() for value in row])
                lines.append(reader.line_num)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"[data] {path} is not a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(f"[data] {path} has a header and no rows")
    return header, rows, lines


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise ValueError(f"[data] {path} is empty; the first line must name the columns")
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise ValueError(f"[data] {path} names a column twice: {', '.join(map(repr, duplicates))}")
    if all(_is_number(name) for name in header):
        raise ValueError(f"[data] {path} begins with numbers; the first line must name the columns")


def _check_column(path: Path, name: str, header: list[str]) -> None:
    if name in header:
        return
    near = difflib.get_close_matches(name, header, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(f"[data] {path} has no column {name!r}{hint} Columns: {_listed(header)}")


def _listed(names: Sequence[str], limit: int = 12) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, name: str, column: list[str], lines: list[int]) -> npt.NDArray[np.float64]:
    """One column as float64 (n,); the first bad cell is reported by line and column."""
    try:
        values = np.array([float(text) for text in column])
    except ValueError:
        row = next(i for i, text in enumerate(column) if not _is_number(text))
        _check_present(path, name, column[row], lines[row])
        raise DTypeError(
            f"[data] {path}, line {lines[row]}, column {name!r}: {column[row][:40]!r} is not a number; "
            "encode text columns as numbers, or drop them"
        ) from None
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        _check_present(path, name, column[bad[0]], lines[bad[0]])
        raise NonFiniteError(
            f"[data] {path}, line {lines[bad[0]]}, column {name!r}: {column[bad[0]]} is not finite"
        )
    return values


def _target(path: Path, name: str, column: list[str], lines: list[int]) -> Array:
    """The target as numbers if all of it is, else as text."""
    for text, line in zip(column, lines, strict=True):
        _check_present(path, name, text, line)
    if all(_is_number(text) for text in column):
        return _numbers(path, name, column, lines)
    return np.array(column)


def _check_present(path: Path, name: str, text: str, line: int) -> None:
    if text.lower() in _MISSING:
        raise NonFiniteError(
            f"[data] {path}, line {line}, column {name!r}: the value is missing; fill it in or drop the row"
        )


# --- NPZ and bundled data -------------------------------------------------------------------------


def _read_npz(
    path: Path, target: str, features: Sequence[str] | None, need_target: bool, task: Task | None
) -> Table:
    arrays = read_arrays(path)
    if need_target and target not in arrays:
        raise ValueError(f"[data] {path} has no target array {target!r}; arrays: {_listed(list(arrays))}")
    matrix, names = _npz_features(path, arrays, target, features)
    if not need_target:
        return Table(path.stem, matrix, names)
    values = arrays[target]
    if values.shape != (len(matrix),):
        raise ShapeError(f"[data] {path}: {target!r} must have shape ({len(matrix)},), got {values.shape}")
    if values.dtype.kind not in "iufbU":
        raise DTypeError(f"[data] {path}: {target!r} must hold numbers or text, got dtype {values.dtype}")
    if values.dtype.kind == "f":
        _check_finite(path, target, values.reshape(-1, 1))
    task, labels, class_names = classify(values, task=task, floating=values.dtype.kind == "f")
    return Table(path.stem, matrix, names, labels, target, class_names, task)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an NPZ file by name. Raises `OSError`, and `ValueError` for what is none or needs pickle."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"[data] {path} cannot be read as NPZ without pickle ({error})") from None


def _npz_features(
    path: Path, arrays: dict[str, Array], target: str, features: Sequence[str] | None
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Array "X" (n, d), each row flattened; or every one-dimensional array but the target, by name."""
    if "X" in arrays:
        x = arrays["X"]
        if x.ndim < 2:
            raise ShapeError(f"[data] {path}: 'X' must have shape (rows, features), got {x.shape}")
        names = [f"x{i}" for i in range(math.prod(x.shape[1:]))]
        columns = {"X": _as_matrix(x)}
    else:
        names = list(features) if features is not None else [name for name in arrays if name != target]
        for name in names:
            _check_column(path, name, list(arrays))
        if not names:
            raise ValueError(f"[data] {path} has no features: name an array 'X', or one array per feature")
        columns = {name: _as_matrix(arrays[name]) for name in names}
    if features is not None and len(names) != len(features):
        raise ShapeError(f"[data] {path} has {len(names)} features, expected {len(features)}")
    for name, column in columns.items():
        if column.dtype.kind not in "iufb":
            raise DTypeError(f"[data] {path}: {name!r} must hold numbers, got dtype {column.dtype}")
        if "X" not in arrays and arrays[name].ndim != 1:
            raise ShapeError(f"[data] {path}: {name!r} must have shape (rows,), got {arrays[name].shape}")
        _check_finite(path, name, column)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or lengths == {0}:
        raise ShapeError(
            f"[data] {path}: features must have equally many rows, at least one, got {sorted(lengths)}"
        )
    return np.concatenate([c.astype(np.float64) for c in columns.values()], axis=1), tuple(names)


def _as_matrix(values: Array) -> Array:
    """(n, ...) as (n, d); a single number has no rows, and is left to the check of the shape."""
    return values.reshape(len(values) if values.ndim else 1, math.prod(values.shape[1:]))


def _check_finite(path: Path, name: str, values: Array) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise NonFiniteError(
            f"[data] {path}: {name!r} has {values[tuple(bad[0])]} in row {bad[0][0]}; fill it in"
        )


def _read_bundled(name: str, features: Sequence[str] | None, task: Task | None) -> Table:
    try:
        from sklearn import datasets
    except ImportError:
        raise ImportError(
            f"[data] the data set {name!r} comes with scikit-learn; install the extra: pip install 'hotloop[sklearn]'"
        ) from None
    bunch: Any = getattr(datasets, f"load_{name}")()
    matrix = np.asarray(bunch.data, np.float64)
    names = tuple(str(feature) for feature in bunch.feature_names)
    if features is not None and tuple(features) != names:
        raise ValueError(f"[data] {name} has other features than the {len(features)} that were asked for")
    values = np.asarray(bunch.target)
    found, labels, class_names = classify(values, task=task, floating=values.dtype.kind == "f")
    if found == "classification" and hasattr(bunch, "target_names"):
        class_names = tuple(str(label) for label in bunch.target_names)
    return Table(name, matrix, names, labels, "target", class_names, found)
