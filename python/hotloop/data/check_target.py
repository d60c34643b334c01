# SPDX-License-Identifier: Apache-2.0
"""The rules of `hotloop.check` about a target: missing, uneven, contradicted, or given away by a feature.

A feature leaks if it tells the target all by itself on rows that were not used to find out how: every row is
predicted from the nearest value among the other half of the rows. A column that merely fits well does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hotloop.data.check_rules import LARGEST, Issue
from hotloop.data.columns import Column, Columns
from hotloop.data.preprocess.categories import factorize, numerals
from hotloop.data.preprocess.target import Task, is_classes
from hotloop.data.rows import fingerprints, numbered

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: A class with less than a tenth of the rows of the largest: accuracy hides it.
_UNEVEN = 10
#: With fewer rows than this, a class has one or none in a validation part of 15 %.
_TINY = 10
#: A feature leaks if it is wrong in at most 1 % of rows, and in at most a tenth of what the most frequent class
#: is; or explains 99 % of the variance. Fisher's iris is told by one width to 96 %, and leaks nothing.
_WRONG, _WRONG_OF_BASE, _EXPLAINED = 0.01, 0.1, 0.99
_LEAK_ROWS = 30, 50_000  # at least, and at most that many of them, chosen at random


def as_target(column: Column) -> Column:
    """A target as the preprocessor takes it: text of numerals is numbers, and blank text is missing."""
    if column.kind == "number":
        return column
    distinct, codes = factorize(column.values)
    parsed = numerals(distinct)
    if parsed is not None:
        return Column(column.name, "number", parsed[codes], column.source)
    texts = np.array([text if text is not None and text.strip() else None for text in distinct], object)
    return Column(column.name, "text", texts[codes], column.source)


def task_of(target: Column) -> Task:
    """What a target asks for, by the rule of the preprocessor; rows without one have no say."""
    return "classification" if target.kind == "text" or is_classes(_known(target)) else "regression"


def usable(target: Column) -> npt.NDArray[np.bool_]:
    """The rows (n,) that have a target: there, and not infinite."""
    return np.abs(target.values) <= LARGEST if target.kind == "number" else ~target.missing


def _known(target: Column) -> Column:
    return replace(target, values=target.values[usable(target)])


def without_target(target: Column) -> Iterator[Issue]:
    """Rows without a target teach nothing, and are refused."""
    bad = np.flatnonzero(~usable(target))
    if len(bad):
        text = f"{len(bad)} of {len(target.values)} rows have no target, first row {bad[0]}; drop those rows"
        yield Issue("target_missing", "error", (target.name,), len(bad), text)


def classes(target: Column, task: Task) -> Iterator[Issue]:
    """One class alone, classes of a few rows, and classes far smaller than the largest."""
    present = _known(target).values
    if task == "regression":
        if len(present) and (present == present[0]).all():
            text = f"always {present[0]:g}; there is nothing to learn"
            yield Issue("one_class", "error", (target.name,), len(present), text)
        return
    distinct, codes = factorize(present)
    counts = np.bincount(codes, minlength=len(distinct))
    names = [class_name(value) for value in distinct]
    if len(distinct) < 2:
        text = f"every row is {names[0]!r}; there is nothing to learn" if names else "no row has a target"
        yield Issue("one_class", "error", (target.name,), len(present), text)
        return
    tiny = np.flatnonzero(counts < _TINY)
    if len(tiny):
        listed = ", ".join(f"{names[i]!r} ({counts[i]})" for i in tiny[:5])
        more = f" and {len(tiny) - 5} more" if len(tiny) > 5 else ""
        text = f"classes of fewer than {_TINY} rows: {listed}{more}; join them with others, or find more rows"
        yield Issue("tiny_classes", "warning", (target.name,), int(counts[tiny].sum()), text)
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] > _UNEVEN * counts[least]:
        text = (
            f"{counts[most]} rows are {names[most]!r}, {counts[least]} are {names[least]!r}; accuracy hides the small "
            "class: use class_weight, and look at each class"
        )
        yield Issue("imbalance", "warning", (target.name,), int(counts[least]), text)


def contradictions(features: Columns, target: Column) -> Iterator[Issue]:
    """Rows with the same features and another class: no model can be right about all of them."""
    same = numbered(fingerprints(features))
    labels = _labels(target)
    kinds = int(same.max(initial=0)) + 1
    least, most = np.full(kinds, np.iinfo(np.int64).max), np.full(kinds, -1)
    np.minimum.at(least, same, labels)
    np.maximum.at(most, same, labels)
    rows = np.flatnonzero((least < most)[same])
    if len(rows):
        other = next(
            row for row in rows[1:].tolist() if same[row] == same[rows[0]] and labels[row] != labels[rows[0]]
        )
        share = len(rows) / len(same)
        text = (
            f"{len(rows)} rows have the features of a row of another class, first {rows[0]} and {other}; no model is "
            "right about all of them"
        )
        yield Issue("contradictions", "warning" if share > 0.05 else "note", (), len(rows), text)


def leaks(features: Columns, target: Column, task: Task) -> Iterator[Issue]:
    """Features that tell the target by themselves: a copy, a code of it, or what is known only afterwards."""
    known = np.flatnonzero(usable(target))
    least, most = _LEAK_ROWS
    if len(known) < least:
        return
    rows = np.random.Generator(np.random.Philox(0)).permutation(known)[:most]
    half = np.arange(len(rows)) % 2 == 0
    labels = _labels(target)[rows] if task == "classification" else None
    values = target.values[rows].astype(np.float64) if labels is None else np.zeros(0)
    for column in features.columns:
        x = _ordered(column, rows)
        if labels is not None:
            right = _share_right(x, labels, half)
            base = np.bincount(labels).max() / len(labels)
            if base < 1 and 1 - right <= _WRONG and 1 - right <= _WRONG_OF_BASE * (1 - base):
                text = f"tells the class of {100 * right:.4g} % of unseen rows by itself; {_DROP}"
                yield Issue("leaking", "warning", (column.name,), len(rows), text)
        else:
            explained = _share_explained(x, values, half)
            if explained >= _EXPLAINED:
                text = f"explains {100 * explained:.4g} % of the target's variance on unseen rows by itself; {_DROP}"
                yield Issue("leaking", "warning", (column.name,), len(rows), text)


_DROP = "drop it if it is not known when predictions are made"


def _ordered(column: Column, rows: Rows) -> Floats:
    """Values (n,) to look neighbours up by; what is missing is a value of its own, apart from all others."""
    if column.kind == "text":
        return numbered(column.values[rows]).astype(np.float64)
    values = np.clip(column.values[rows], -1e300, 1e300)
    return np.where(np.isnan(values), 1.7e308, values)


def _share_right(x: Floats, labels: Rows, half: npt.NDArray[np.bool_]) -> float:
    """Rows whose class is the most frequent one at the nearest x of the other half."""
    right = 0
    n_classes = int(labels.max()) + 1
    for known in (half, ~half):
        places, place = np.unique(x[known], return_inverse=True)
        table = np.bincount(place.reshape(-1) * n_classes + labels[known], minlength=len(places) * n_classes)
        best = table.reshape(-1, n_classes).argmax(axis=1)
        right += int((best[_nearest(places, x[~known])] == labels[~known]).sum())
    return right / len(x)


def _share_explained(x: Floats, y: Floats, half: npt.NDArray[np.bool_]) -> float:
    """1 - residual variance / variance, where y is interpolated between the neighbours in the other half."""
    y = y - y.mean()
    y = y / max(np.abs(y).max(), np.finfo(np.float64).tiny)  # its square stays in float64
    residual = np.empty(len(y))
    for known in (half, ~half):
        places, place = np.unique(x[known], return_inverse=True)
        place = place.reshape(-1)
        mean = np.bincount(place, y[known]) / np.bincount(place)
        residual[~known] = y[~known] - np.interp(x[~known], places, mean)
    total = float(np.square(y).sum())
    return 1 - float(np.square(residual).sum()) / total if total > 0 else 0.0


def _nearest(places: Floats, x: Floats) -> Rows:
    """The index of the nearest of sorted places."""
    right = np.clip(np.searchsorted(places, x), 1, max(len(places) - 1, 1))
    if len(places) == 1:
        return np.zeros(len(x), np.int64)
    left = right - 1
    return np.where(x - places[left] <= places[right] - x, left, right).astype(np.int64)


def _labels(target: Column) -> Rows:
    return numbered(target.values)


def class_name(value: object) -> str:
    """A class as people write it: whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
