# SPDX-License-Identifier: Apache-2.0
"""Split data into training, validation and a sealed test part: at random, by group or by time.

What is decided here is which rows are asked for; dealing.py deals them, rows.py takes them. Rows that stand in
two parts are counted whatever the rule, because a result on rows that were trained on says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union

import numpy as np
import numpy.typing as npt

from hotloop.arguments import choice, count, number
from hotloop.data import dealing, rows
from hotloop.data.sealed import Part as Part
from hotloop.data.sealed import SealedData as SealedData
from hotloop.data.sealed import looks_text
from hotloop.errors import ShapeError

Rows = npt.NDArray[np.int64]
By = Literal["", "group", "time"]
Duplicates = Literal["report", "together", "ignore"]


@dataclass(frozen=True)
class SplitInfo:
    """How data was split, without the data: what a model file keeps of it (`Trainer.split`).

    rows        of training, validation and test
    seed        that `split` was called with
    stratified  whether classes were kept even
    digest      BLAKE2b of the row numbers of all parts, hexadecimal: equal splits have equal ones
    by          "group", "time", or "" where rows were dealt at random
    duplicates  rows of validation and test that also stand in an earlier part; None: nobody looked
    first_duplicate  the row numbers of the first such pair, the earlier part's first
    looks       the purpose of each look at the test rows; of the split in hand it goes on growing
    """

    rows: tuple[int, int, int]
    seed: int
    stratified: bool
    digest: str
    by: By = ""
    duplicates: int | None = None
    first_duplicate: tuple[int, int] | None = None
    looks: list[str] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        train, validation, test = self.rows
        how = (f", by {self.by}" if self.by else "") + (", stratified" if self.stratified else "")
        text = f"{train} train, {validation} validation, {test} test{how}; seed {self.seed}, rows {self.digest[:12]}"
        return f"{text}; {self.duplicates_text()}" if self.duplicates else text

    def duplicates_text(self) -> str:
        """What was found about rows that stand in two parts.

        >>> SplitInfo((2, 1, 1), 0, False, "", duplicates=1, first_duplicate=(0, 3)).duplicates_text()
        '1 row of validation and test also in an earlier part (rows 0 and 3)'
        """
        if self.duplicates is None:
            return "not looked for"
        if not self.duplicates or self.first_duplicate is None:
            return "none"
        a, b = self.first_duplicate
        s = "" if self.duplicates == 1 else "s"
        return f"{self.duplicates} row{s} of validation and test also in an earlier part (rows {a} and {b})"

    def looks_text(self) -> str:
        """How often the test rows were opened so far, and what for."""
        return looks_text(self.looks)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SplitInfo:
        """From what `dataclasses.asdict` gave, in this version or an earlier one. Raises `KeyError`,
        `TypeError` or `ValueError` for other data."""
        train, validation, test = (int(n) for n in data["rows"])
        found, pair = data.get("duplicates"), data.get("first_duplicate")
        return cls(
            (train, validation, test),
            int(data["seed"]),
            bool(data["stratified"]),
            str(data["digest"]),
            data.get("by", ""),
            None if found is None else int(found),
            None if pair is None else (int(pair[0]), int(pair[1])),
            [str(purpose) for purpose in data.get("looks", ())],
        )


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of the data; ``rows`` holds the row numbers of each, in order.

    ``duplicates`` counts the rows of validation and test that also stand in an earlier part, and
    ``first_duplicate`` names the first pair; None if `split` was told not to look.
    """

    train: Part
    validation: Part
    test: SealedData
    rows: tuple[Rows, Rows, Rows]
    seed: int = 0
    stratified: bool = False
    by: By = ""
    duplicates: int | None = None
    first_duplicate: tuple[int, int] | None = None

    @property
    def info(self) -> SplitInfo:
        """All but the data: ``trainer.split = data.info`` has it kept in the model's file and in reports."""
        import hashlib  # for the few who ask

        train, validation, test = self.rows
        hasher = hashlib.blake2b(digest_size=16)
        for part in self.rows:
            hasher.update(f"{len(part)};".encode() + np.ascontiguousarray(part, "<i8").tobytes())
        return SplitInfo(
            (len(train), len(validation), len(test)),
            self.seed,
            self.stratified,
            hasher.hexdigest(),
            self.by,
            self.duplicates,
            self.first_duplicate,
            self.test.looks,
        )

    def __repr__(self) -> str:
        train, validation, test = map(len, self.rows)
        more = f", {self.duplicates} of them also in an earlier part" if self.duplicates else ""
        return f"Split(train={train} rows, validation={validation} rows, test={test} rows{more})"


def split(
    X: Any,
    y: Any,
    *,
    sizes: Sequence[float] = (0.70, 0.15, 0.15),
    stratify: Union[bool, Literal["auto"], npt.ArrayLike] = "auto",
    seed: int = 0,
    groups: Any = None,
    time: Any = None,
    duplicates: Duplicates = "report",
) -> Split:
    """Split rows into training, validation and test.

    Args:
        X, y: array-likes of equal length, frames, or mappings of named ones; parts are of the kind and dtype
            that was given. ``y`` may be the name of a column of a frame ``X``, which then loses it.
        sizes: three shares that add up to 1, or three row counts that add up to all rows.
        stratify: "auto" for a one-dimensional ``y`` of integers, booleans or text with classes of two rows
            or more on average; True or False; or labels (n,) to stratify by.
        seed: >= 0; the same seed gives the same rows on every machine.
        groups: (n,), or the name of a column of X (which keeps it): rows of equal value, such as those of one
            patient, stay in one part. Sizes and classes are then as near as whole groups allow.
        time: (n,) numbers, dates or ISO 8601 text, or the name of a column: training before validation before
            test, ties in one part, each part in order. Not stratified; the seed is not used.
        duplicates: rows equal in X and y. "report" counts those in two parts, "together" keeps equal rows in
            one part (they become groups), "ignore" does not look (nothing is hashed).

    Raises `ShapeError` for unequal lengths, parts that would be empty and fewer than three groups or times,
    `NonFiniteError` for a time or group that is missing, `ValueError` or `TypeError` for other arguments.

    >>> data = split(np.zeros((20, 3)), np.arange(20) % 2, duplicates="ignore")
    >>> data
    Split(train=14 rows, validation=3 rows, test=3 rows)
    >>> data.train.X.shape
    (14, 3)
    """
    X, y = _given(X, y)
    n = _common_length(X, y)
    counts = _part_counts(sizes, n)
    choice("split", "duplicates", duplicates, ("report", "together", "ignore"))
    seed = count("split", "seed", seed)
    keys = None if groups is None else _keys("groups", groups, X, n)
    prints = None if duplicates == "ignore" else rows.fingerprints(X, y)
    labels: Rows | None = None
    if time is not None:
        _refuse_with_time(groups, stratify, duplicates)
        parts = dealing.by_time(_column("time", time, X, n), counts)
    else:
        labels = _labels(stratify, y, n)
        if duplicates == "together" and prints is not None:
            keys = _equal_rows_joined(prints, keys)
        order = dealing.random_order(n, seed)
        if keys is not None:
            parts = dealing.by_groups(order, keys, labels, counts)
        elif labels is not None:
            parts = dealing.stratified(order, labels, counts)
        else:
            parts = np.split(order, np.cumsum(counts)[:-1])
    numbers = (parts[0], parts[1], parts[2])
    found, pair = (None, None) if prints is None else _shared_rows(prints, numbers)
    train, validation, test = (Part(rows.take(X, r), rows.take(y, r)) for r in numbers)
    by: By = "time" if time is not None else "group" if groups is not None else ""
    return Split(train, validation, SealedData(*test), numbers, seed, labels is not None, by, found, pair)


# --- arguments ------------------------------------------------------------------------------------


def _given(X: Any, y: Any) -> tuple[Any, Any]:
    X = rows.holder("split", "X", X)
    if isinstance(y, str):
        if not rows.has_column(X, y):
            raise ValueError(f"[split] y={y!r} must name a column of X, which {_frame_text(X)}")
        return rows.without(X, y), rows.column(X, y)
    return X, rows.holder("split", "y", y)


def _frame_text(X: Any) -> str:
    if rows.is_named(X):
        return f"has the columns {', '.join(rows.column_names(X)[:12])}"
    return f"is no frame but {type(X).__name__}; give the values themselves"


def _common_length(X: Any, y: Any) -> int:
    n = rows.n_rows(X)
    for name, data in (("X", X), ("y", y)):
        for key, values in (data if isinstance(data, dict) else {"": data}).items():
            if rows.n_rows(values) != n:
                what = f"{name}[{key!r}]" if key else name
                raise ShapeError(
                    f"[split] {what} has {rows.n_rows(values)} rows, X has {n}; they must be equal"
                )
    return n


def _part_counts(sizes: Sequence[float], n: int) -> list[int]:
    """Exact row counts: shares rounded down, the rows left over to the largest remainders."""
    if len(sizes) != 3:
        raise ValueError(f"[split] sizes must be three numbers (train, validation, test), got {len(sizes)}")
    if all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in sizes):
        counts = [count("split", f"sizes[{i}]", size) for i, size in enumerate(sizes)]
        if sum(counts) != n:
            raise ValueError(f"[split] sizes given as rows must add up to {n}, got {tuple(counts)}")
    else:
        shares = [number("split", f"sizes[{i}]", size, low=0, high=1) for i, size in enumerate(sizes)]
        if abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"[split] sizes must add up to 1, got {tuple(shares)}")
        counts = [int(share * n + 1e-9) for share in shares]  # 0.15 * 20 is 3, whatever the last bit says
        remainders = [share * n - rows for share, rows in zip(shares, counts, strict=True)]
        for part in sorted(range(3), key=lambda i: (-remainders[i], i))[: n - sum(counts)]:
            counts[part] += 1
    if not all(counts):
        raise ShapeError(
            f"[split] {n} rows give parts of {tuple(counts)} rows; every part needs at least one"
        )
    return counts


def _column(name: str, given: Any, X: Any, n: int) -> npt.NDArray[Any]:
    """What orders or groups the rows, (n,): given itself, or as the name of a column of X."""
    if isinstance(given, str):
        if not rows.has_column(X, given):
            raise ValueError(f"[split] {name}={given!r} must name a column of X, which {_frame_text(X)}")
        given = rows.column(X, given)
    values = rows.one_dimensional(given, name, "split")
    if len(values) != n:
        raise ShapeError(f"[split] {name} has {len(values)} rows, X has {n}; they must be equal")
    return values


def _keys(name: str, given: Any, X: Any, n: int) -> Rows:
    values = _column(name, given, X, n)
    rows.refuse_missing(values, name, "split")
    return rows.numbered(values)


def _refuse_with_time(groups: Any, stratify: Any, duplicates: Duplicates) -> None:
    if groups is not None:
        raise ValueError(
            "[split] groups= and time= contradict each other: a group may last; give one of them"
        )
    if duplicates == "together":
        raise ValueError(
            "[split] duplicates='together' would break the order of time; use 'report', the default"
        )
    if not (stratify is None or stratify is False or (isinstance(stratify, str) and stratify == "auto")):
        raise ValueError("[split] time= decides every row; stratify must be 'auto' or False with it")


def _labels(stratify: Any, y: Any, n: int) -> Rows | None:
    """Class numbers 0, 1, ... of the rows, or None."""
    if isinstance(stratify, str) and stratify != "auto":
        raise ValueError(f"[split] stratify must be 'auto', True, False or labels, got {stratify!r}")
    auto = isinstance(stratify, str)
    if stratify is None or stratify is False:
        return None
    if auto or stratify is True:
        names = rows.column_names(y) if rows.is_named(y) else ()
        target = rows.column(y, names[0]) if len(names) == 1 else y
        labels = None if isinstance(target, dict) or rows.is_named(target) else np.asarray(target)
        if labels is not None and labels.dtype == object and labels.ndim == 1:
            labels = rows.one_dimensional(labels, "y", "split")
        if labels is None or labels.ndim != 1 or (auto and labels.dtype.kind not in "iubUSTO"):
            if auto:
                return None
            raise ShapeError(
                "[split] stratify=True needs one target of shape (n,); pass the labels as stratify="
            )
    else:
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise ShapeError(
                f"[split] stratify must hold one label per row, shape ({n},), got {labels.shape}"
            )
        labels = rows.one_dimensional(labels, "stratify", "split")
    numbers = rows.numbered(labels)
    return None if auto and int(numbers.max()) + 1 > n // 2 else numbers


# --- duplicates -----------------------------------------------------------------------------------


def _equal_rows_joined(prints: npt.NDArray[np.uint64], keys: Rows | None) -> Rows | None:
    """Groups with equal rows joined to one; without groups, None if no two rows are equal."""
    same = np.unique(prints, return_inverse=True)[1].reshape(-1).astype(np.int64)
    if keys is not None:
        return dealing.joined(keys, same)
    return None if int(same.max()) + 1 == len(same) else same


def _shared_rows(
    prints: npt.NDArray[np.uint64], parts: tuple[Rows, Rows, Rows]
) -> tuple[int, tuple[int, int] | None]:
    """How many rows of the later parts stand in an earlier one too, and the first pair of them."""
    order = np.concatenate(parts)
    part = np.repeat(np.arange(3), [len(p) for p in parts])
    _, first, kind = np.unique(prints[order], return_index=True, return_inverse=True)
    earliest = first[kind.reshape(-1)]  # the place in `order` where an equal row stands first
    shared = np.flatnonzero(part > part[earliest])
    if not len(shared):
        return 0, None
    pairs = np.stack([order[earliest[shared]], order[shared]], axis=1)
    a, b = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))[0]]
    return len(shared), (int(a), int(b))
