# SPDX-License-Identifier: Apache-2.0
"""Learning a preprocessor from training rows: each column by its kind, and a report about all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hotloop.data import cells
from hotloop.data.columns import Column, as_columns, check_names
from hotloop.data.preprocess import categories, numbers, target
from hotloop.data.preprocess.align import Kind, has_names
from hotloop.data.preprocess.categories import Categories, clean
from hotloop.data.preprocess.numbers import Numbers
from hotloop.data.preprocess.report import Finding, Report, quoted, share
from hotloop.data.preprocess.target import Target
from hotloop.errors import ShapeError

WHERE = "Preprocessor.fit"


@dataclass(frozen=True)
class Options:
    """How columns are treated; see `Preprocessor.fit`. Raises `ValueError` for what is not allowed."""

    missing: numbers.Missing = "median"
    indicator: bool = True
    text: Literal["auto", "onehot", "embedding"] = "auto"
    scale: numbers.Scale = "standard"
    clip: float | None = None
    rare: int | float | None = None
    max_onehot: int = 8

    def __post_init__(self) -> None:
        number = isinstance(self.missing, (int, float)) and math.isfinite(self.missing)
        if not number and self.missing not in ("median", "mean", "refuse"):
            raise ValueError(
                f"[{WHERE}] missing must be 'median', 'mean', 'refuse' or a number, got {self.missing!r}"
            )
        _check("text", self.text, ("auto", "onehot", "embedding"))
        _check("scale", self.scale, ("standard", "robust", None))
        if self.clip is not None and not (self.clip > 0 and math.isfinite(self.clip)):
            raise ValueError(f"[{WHERE}] clip must be None or a number above 0, got {self.clip!r}")
        if (self.rare is not None and not self.rare >= 0) or (
            isinstance(self.rare, float) and self.rare >= 1
        ):
            raise ValueError(
                f"[{WHERE}] rare must be None, a count of rows or a share below 1, got {self.rare!r}"
            )
        if self.max_onehot < 0:
            raise ValueError(f"[{WHERE}] max_onehot must be 0 or more, got {self.max_onehot!r}")

    def rare_rows(self, rows: int) -> int:
        """Categories in fewer rows than this are pooled: by default below 1 % of the rows, and below 5."""
        if self.rare is None:
            return min(5, math.ceil(rows / 100))
        return math.ceil(self.rare * rows) if isinstance(self.rare, float) else int(self.rare)


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that was learnt; the fields of `Preprocessor`."""

    feature_names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    numbers: Numbers
    texts: tuple[Categories, ...]
    target: Target
    report: Report


def fit(
    features: Any,
    labels: Any,
    *,
    options: Options,
    task: target.Task | Literal["auto"],
    scale_target: numbers.Scale,
    feature_names: Sequence[str] | None,
    target_name: str,
    class_names: Sequence[str],
) -> Fitted:
    """See `Preprocessor.fit`."""
    _check("task", task, ("auto", "classification", "regression"))
    _check("scale_target", scale_target, ("standard", "robust", None))
    names, rows, columns = _features(features, feature_names)
    learnt_target, target_column = Target(name=target_name), None
    if labels is not None:
        target_column = target.read(labels, target_name, where=WHERE)
        if len(target_column.values) != rows:
            raise ShapeError(f"[{WHERE}] target must have shape ({rows},), got {target_column.values.shape}")
        learnt_target = target.learn(
            target_column, name=target_name, task=task, class_names=class_names, scale=scale_target
        )
    learner = _Learner(options, rows)
    for column in columns:
        learner.add(column)
    learner.finish(target_column, learnt_target)
    return Fitted(
        names,
        tuple(learner.kinds),
        learner.numbers(),
        tuple(learner.texts),
        learnt_target,
        Report(tuple(learner.findings)),
    )


def _features(features: Any, names: Sequence[str] | None) -> tuple[tuple[str, ...], int, Iterable[Column]]:
    """The names, the rows and the columns, which for an array of numbers are made one at a time."""
    if has_names(features):
        table = as_columns(features, where=WHERE)
        columns: Iterable[Column] = (table if names is None else table.select(names, where=WHERE)).columns
        found, rows = tuple(column.name for column in columns), table.rows
    else:
        matrix = cells.matrix(features, where=WHERE)
        rows, d = matrix.shape
        found = tuple(f"x{i}" for i in range(d)) if names is None else check_names(names, WHERE)
        if len(found) != d:
            raise ShapeError(f"[{WHERE}] {len(found)} feature names for {d} features")
        columns = (
            cells.column(name, values, where=WHERE) for name, values in zip(found, matrix.T, strict=True)
        )
    if not found:
        raise ShapeError(f"[{WHERE}] features has no columns; at least one is needed")
    if rows == 0:
        raise ShapeError(f"[{WHERE}] features has no rows; at least one is needed")
    return found, rows, columns


class _Learner:
    """Goes through the columns once; what it has learnt so far."""

    def __init__(self, options: Options, rows: int) -> None:
        self.options, self.rows = options, rows
        self.kinds: list[Kind] = []
        self.texts: list[Categories] = []
        self.findings: list[Finding] = []
        self._numbers: list[numbers.Learnt] = []
        self._hash = np.zeros(rows, np.uint64)

    def add(self, column: Column) -> None:
        if column.source.startswith("mixed"):
            self._found(
                "mixed", column.name, self.rows, f"holds {column.source[6:].strip('()')}; taken as text"
            )
        values = column.values
        if column.kind == "text":
            distinct, codes = categories.factorize(values)
            parsed = categories.numerals(distinct)
            if parsed is None and any(map(clean, distinct)):
                self._hash_codes(codes)
                self._add_text(column.name, distinct, codes)
                return
            values = np.full(self.rows, np.nan) if parsed is None else parsed[codes]
            if parsed is not None:
                self._found("numerals", column.name, self.rows, "text of plain numerals; read as numbers")
        self._hash_numbers(values)
        self._add_number(column.name, values)

    def _add_number(self, name: str, values: NDArray[Any]) -> None:
        learnt = numbers.learn(name, values, missing=self.options.missing, scale=self.options.scale)
        self._numbers.append(learnt)
        empty = learnt.n_missing == self.rows
        self.kinds.append("empty" if empty else "number")
        if empty:
            self._found("empty", name, self.rows, "has no value in any row; gives 0")
            return
        if learnt.n_missing:
            kind = self.options.missing if isinstance(self.options.missing, str) else "constant"
            told = ", and a column of its own says where" if self.options.indicator else ""
            text = f"{share(learnt.n_missing, self.rows)} missing; filled with the {kind} {learnt.fill:.6g}{told}"
            self._found("missing", name, learnt.n_missing, text)
        if learnt.scale == 0:
            self._found("constant", name, self.rows, f"always {learnt.center:.6g}; gives 0")
        if learnt.n_outliers:
            where = f"more than {numbers.FENCE:g} interquartile ranges beyond the quartiles"
            done = (
                "kept" if self.options.clip is None else f"clipped smoothly at {self.options.clip:g} scales"
            )
            self._found(
                "outliers", name, learnt.n_outliers, f"{share(learnt.n_outliers, self.rows)} {where}; {done}"
            )

    def _add_text(self, name: str, distinct: list[Any], codes: NDArray[np.intp]) -> None:
        rare = self.options.rare_rows(self.rows)
        learnt = categories.learn(
            distinct, codes, own_missing=self.options.indicator, rare=rare,
            max_onehot=self.options.max_onehot, encoding=self.options.text,
        )  # fmt: skip
        found = learnt.categories
        self.texts.append(found)
        self.kinds.append("text")
        if learnt.n_missing:
            most = found.names[found.missing - 1] if 0 < found.missing <= len(found.names) else "other"
            done = "a category of its own" if found.missing > len(found.keys) else f"counted as {most!r}"
            self._found(
                "missing", name, learnt.n_missing, f"{share(learnt.n_missing, self.rows)} missing; {done}"
            )
        self._spellings(name, learnt.spellings)
        if learnt.n_rare:
            count = "1 category" if learnt.n_rare == 1 else f"{learnt.n_rare} categories"
            text = (
                f"{count} in fewer than {rare} rows each, {share(learnt.n_rare_rows, self.rows)} in all; pooled as "
                f"'other': {quoted(learnt.rare, learnt.n_rare)}"
            )
            self._found("rare", name, learnt.n_rare_rows, text)
        if found.encoding == "constant":
            what = (
                f"always {found.names[0]!r}"
                if found.names
                else "no category is frequent enough to learn from"
            )
            self._found("constant", name, self.rows, f"{what}; gives 0")

    def _spellings(self, name: str, spellings: Mapping[str, tuple[tuple[str, ...], int]]) -> None:
        shown = list(spellings.items())[: categories.N_SHOWN]
        for category, (ways, rows) in shown:
            text = f"{category!r} is written in {len(ways)} ways: {quoted(ways)}; taken as one category"
            self._found("spelling", name, rows, text)
        rest = [rows for _, rows in spellings.values()][len(shown) :]
        if rest:
            more = f"{len(rest)} more categories are written in several ways; each is taken as one"
            self._found("spelling", name, sum(rest), more)

    def finish(self, column: Column | None, learnt: Target) -> None:
        """What concerns the target, and rows as a whole."""
        if column is not None and column.kind == "text":
            self._hash_codes(categories.factorize(column.values)[1])
            self._target_spellings(learnt)
        elif column is not None:
            self._hash_numbers(column.values)
        ordered = np.sort(self._hash)
        repeated = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        if repeated:
            self._found(
                "duplicates", None, repeated, f"{share(repeated, self.rows)} rows repeat an earlier row; kept"
            )

    def _target_spellings(self, learnt: Target) -> None:
        ways: dict[str, list[str]] = {}
        for name in learnt.class_names:
            ways.setdefault(clean(name), []).append(name)
        for names in ways.values():
            if len(names) > 1:
                text = f"the classes {quoted(tuple(names))} differ in spelling only; kept apart"
                self._found("spelling", learnt.name, self.rows, text)

    def numbers(self) -> Numbers:
        """All columns of numbers together."""
        fill, center, scale = (
            np.array([getattr(learnt, field) for learnt in self._numbers], np.float64)
            for field in ("fill", "center", "scale")
        )
        n_missing = np.array([learnt.n_missing for learnt in self._numbers], np.int64)
        indicator = (n_missing > 0) & (n_missing < self.rows) & self.options.indicator
        clip = None if self.options.clip is None else float(self.options.clip)
        return Numbers(fill, center, scale, indicator, clip)

    def _found(self, kind: str, column: str | None, rows: int, text: str) -> None:
        self.findings.append(Finding(kind, column, rows, self.rows, text))

    def _hash_numbers(self, values: NDArray[Any]) -> None:
        plain = np.array(values, np.float64) + 0.0  # -0 is 0
        plain[np.isnan(plain)] = np.nan  # there are many NaN
        self._mix(plain.view(np.uint64))

    def _hash_codes(self, codes: NDArray[np.intp]) -> None:
        self._mix(codes.astype(np.uint64))

    def _mix(self, words: NDArray[np.uint64]) -> None:
        """One more column into a 64-bit hash of each row, by the finaliser of splitmix64 (Steele, Lea, Flood:
        Fast splittable pseudorandom number generators, 2014): equal hashes are taken as equal rows."""
        h = self._hash
        h += np.uint64(0x9E3779B97F4A7C15)
        h ^= words
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            h ^= h >> np.uint64(shift)
            h *= np.uint64(factor)
        h ^= h >> np.uint64(31)


def _check(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"[{WHERE}] {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
