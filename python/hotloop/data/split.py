# SPDX-License-Identifier: Apache-2.0
"""Split data into training, validation and a sealed test part: exact sizes, even classes, one seed.

Row shares are rounded as a table (classes by parts), so that every part has exactly its size and every
class is within one row of its share in every part, however small it is. Random order comes from the raw
stream of Philox, which no NumPy release may change.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Union

import numpy as np
import numpy.typing as npt

from hotloop.arguments import count, number
from hotloop.errors import HotloopWarning, ShapeError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Data = Union[Array, dict[str, Array]]

_STREAM = 0x73706C6974  # "split": keeps these random numbers apart from any others of the same seed


class Part(NamedTuple):
    """Rows of the data: ``X, y = part``, or ``part.X``; inputs and targets of the kind that was given."""

    X: Any
    y: Any


class SealedData:
    """The test rows, behind a counter. What is chosen by looking at test results is fitted to them, so that
    every look is counted: `open` it, unpack it, or hand it to ``Trainer.evaluate``. From the second time
    on, a `HotloopWarning` says how often.

    >>> sealed = SealedData(np.zeros((2, 3)), np.zeros(2))
    >>> X, y = sealed.open("final evaluation")
    >>> sealed
    SealedData(2 rows, opened 1 time: final evaluation)
    """

    def __init__(self, X: Any, y: Any) -> None:
        self._part = Part(X, y)
        self._log: list[str] = []

    def open(self, purpose: str = "unnamed") -> Part:
        """The rows themselves; the opening and its purpose go into `log`."""
        self._log.append(purpose)
        if self.openings > 1:
            warnings.warn(
                f"[split] the test data was opened {self.openings} times ({', '.join(self._log)}); results chosen "
                "among several looks are optimistic",
                HotloopWarning,
                stacklevel=2,
            )
        return self._part

    @property
    def openings(self) -> int:
        """How often the data was looked at."""
        return len(self._log)

    @property
    def log(self) -> tuple[str, ...]:
        """The purpose of each opening."""
        return tuple(self._log)

    def __len__(self) -> int:
        return _n_rows(self._part.X)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.open("unpacked"))

    def __getattr__(self, name: str) -> Any:
        if name in ("X", "y"):
            raise AttributeError(
                f"[split] test.{name} is sealed; X, y = test.open('purpose'), which is counted"
            )
        raise AttributeError(f"'SealedData' object has no attribute {name!r}")

    def __repr__(self) -> str:
        times = "1 time" if self.openings == 1 else f"{self.openings} times"
        purposes = f": {', '.join(self._log)}" if self._log else ""
        return f"SealedData({len(self)} rows, opened {times}{purposes})"


@dataclass(frozen=True)
class SplitInfo:
    """How data was split, without the data: what a model file keeps of it (`Trainer.split`).

    rows        of training, validation and test
    seed        that `split` was called with
    stratified  whether classes were kept even
    digest      BLAKE2b of the row numbers of all parts, hexadecimal: equal splits have equal ones
    """

    rows: tuple[int, int, int]
    seed: int
    stratified: bool
    digest: str

    def __str__(self) -> str:
        train, validation, test = self.rows
        how = ", stratified" if self.stratified else ""
        return f"{train} train, {validation} validation, {test} test{how}; seed {self.seed}, rows {self.digest[:12]}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SplitInfo:
        """From what `dataclasses.asdict` gave. Raises `KeyError`, `TypeError` or `ValueError` for other data."""
        train, validation, test = (int(n) for n in data["rows"])
        return cls(
            (train, validation, test), int(data["seed"]), bool(data["stratified"]), str(data["digest"])
        )


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of the data; ``rows`` holds the row numbers of each, in order."""

    train: Part
    validation: Part
    test: SealedData
    rows: tuple[Rows, Rows, Rows]
    seed: int = 0
    stratified: bool = False

    @property
    def info(self) -> SplitInfo:
        """Sizes, seed and digest: ``trainer.split = data.info`` has them kept in the model's file."""
        import hashlib  # for the few who ask

        train, validation, test = self.rows
        hasher = hashlib.blake2b(digest_size=16)
        for part in self.rows:
            hasher.update(f"{len(part)};".encode() + np.ascontiguousarray(part, "<i8").tobytes())
        return SplitInfo(
            (len(train), len(validation), len(test)), self.seed, self.stratified, hasher.hexdigest()
        )

    def __repr__(self) -> str:
        train, validation, test = map(len, self.rows)
        return f"Split(train={train} rows, validation={validation} rows, test={test} rows)"


def split(
    X: Any,
    y: Any,
    *,
    sizes: Sequence[float] = (0.70, 0.15, 0.15),
    stratify: Union[bool, Literal["auto"], npt.ArrayLike] = "auto",
    seed: int = 0,
) -> Split:
    """Split rows into training, validation and test.

    Args:
        X, y: array-likes of equal length, or mappings of named ones; their dtypes are kept.
        sizes: three shares that add up to 1, or three row counts that add up to all rows.
        stratify: "auto" for a one-dimensional ``y`` of integers, booleans or text with classes of two rows
            or more on average; True or False; or labels (n,) to stratify by.
        seed: >= 0; the same seed gives the same rows on every machine.

    Raises `ShapeError` for unequal lengths and parts that would be empty, `ValueError` or `TypeError` for
    other arguments.

    >>> data = split(np.zeros((20, 3)), np.arange(20) % 2)
    >>> data
    Split(train=14 rows, validation=3 rows, test=3 rows)
    >>> data.train.X.shape
    (14, 3)
    """
    X, y = _arrays("X", X), _arrays("y", y)
    n = _common_length(X, y)
    counts = _part_counts(sizes, n)
    labels = _labels(stratify, y, n)
    seed = count("split", "seed", seed)
    rank = _random_order(n, seed)
    if labels is None:
        parts = np.split(rank, np.cumsum(counts)[:-1])
    else:
        parts = _stratified(rank, labels, counts)
    rows = (parts[0], parts[1], parts[2])
    train, validation, test = (Part(_take(X, r), _take(y, r)) for r in rows)
    return Split(train, validation, SealedData(*test), rows, seed, labels is not None)


# --- arguments ------------------------------------------------------------------------------------


def _arrays(name: str, data: Any) -> Data:
    if isinstance(data, Mapping):
        if not data:
            raise ShapeError(f"[split] {name} is an empty mapping; give at least one named array")
        return {str(key): _array(f"{name}[{key!r}]", value) for key, value in data.items()}
    return _array(name, data)


def _array(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.ndim == 0:
        raise ShapeError(f"[split] {name} must have rows, got a single {type(value).__name__}")
    return array


def _n_rows(data: Data) -> int:
    return len(next(iter(data.values())) if isinstance(data, dict) else data)


def _take(data: Data, rows: Rows) -> Data:
    if isinstance(data, dict):
        return {key: value[rows] for key, value in data.items()}
    return data[rows]


def _common_length(X: Data, y: Data) -> int:
    n = _n_rows(X)
    for name, data in (("X", X), ("y", y)):
        for key, array in (data if isinstance(data, dict) else {"": data}).items():
            if len(array) != n:
                what = f"{name}[{key!r}]" if key else name
                raise ShapeError(f"[split] {what} has {len(array)} rows, X has {n}; they must be equal")
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


def _labels(stratify: Any, y: Data, n: int) -> Rows | None:
    """Class numbers 0, 1, ... of the rows, or None."""
    if isinstance(stratify, str) and stratify != "auto":
        raise ValueError(f"[split] stratify must be 'auto', True, False or labels, got {stratify!r}")
    auto = isinstance(stratify, str)
    if stratify is None or stratify is False:
        return None
    if auto or stratify is True:
        if isinstance(y, dict) or y.ndim != 1 or (auto and y.dtype.kind not in "iubUS"):
            if auto:
                return None
            raise ShapeError(
                "[split] stratify=True needs one target of shape (n,); pass the labels as stratify="
            )
        labels = y
    else:
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise ShapeError(
                f"[split] stratify must hold one label per row, shape ({n},), got {labels.shape}"
            )
    classes, numbers = np.unique(labels, return_inverse=True)
    return None if auto and len(classes) > n // 2 else numbers.astype(np.int64)


# --- rows -----------------------------------------------------------------------------------------


def _random_order(n: int, seed: int) -> Rows:
    """A permutation of n rows: the order of n 64-bit random numbers."""
    key = (seed & (2**64 - 1)) | (_STREAM << 64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable").astype(np.int64)


def _stratified(order: Rows, labels: Rows, counts: list[int]) -> list[Rows]:
    """Deal each class, in random order, to the parts; rows within a part stay in random order."""
    table = _round_table(np.bincount(labels), counts)  # (classes, 3)
    by_class = np.argsort(labels[order], kind="stable")
    part_of = np.empty(len(order), np.int64)  # of order[i]
    part_of[by_class] = np.repeat(np.tile(np.arange(3), len(table)), table.ravel())
    return [order[part_of == part] for part in range(3)]


def _round_table(class_rows: Rows, part_rows: Sequence[int]) -> Rows:
    """Whole numbers (classes, parts) with the given sums, each cell less than 1 from its exact share.

    Every cell is its share rounded down, plus 0 or 1. A class first gives its spare rows to the parts with
    the largest fractions; then rows move along chains of parts until the parts' sums are right, only ever
    into cells that were rounded down. That such a rounding exists is the integrality of flows.
    """
    parts = np.asarray(part_rows, np.int64)
    scaled = class_rows[:, None] * parts  # exact share times n, in integers: no rounding
    floor, fraction = np.divmod(scaled, parts.sum())
    spare = class_rows - floor.sum(axis=1)
    ranks = np.argsort(np.argsort(-fraction, axis=1, kind="stable"), axis=1, kind="stable")
    extra = ranks < spare[:, None]  # (classes, parts)
    while True:
        excess = floor.sum(axis=0) + extra.sum(axis=0) - parts
        if not excess.any():
            return np.asarray(floor + extra, np.int64)
        _move_one(extra, fraction > 0, int(excess.argmax()), int(excess.argmin()))


def _move_one(extra: npt.NDArray[np.bool_], allowed: npt.NDArray[np.bool_], source: int, sink: int) -> None:
    """Move one spare row from part ``source`` to ``sink``, directly or over the third part."""
    others = [p for p in range(extra.shape[1]) if p not in (source, sink)]
    for chain in ([source, sink], *([source, via, sink] for via in others)):
        steps = list(itertools.pairwise(chain))
        movable = [np.flatnonzero(extra[:, a] & ~extra[:, b] & allowed[:, b]) for a, b in steps]
        if all(len(rows) for rows in movable):
            for (a, b), rows in zip(steps, movable, strict=True):
                extra[rows[0], a], extra[rows[0], b] = False, True
            return
    raise AssertionError("a table of shares can always be rounded")
