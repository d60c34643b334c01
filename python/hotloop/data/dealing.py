# SPDX-License-Identifier: Apache-2.0
"""Who gets which row: the rules by which `split` deals rows to its three parts.

Row shares are rounded as a table (classes by parts), so that every part has exactly its size and every
class is within one row of its share in every part, however small it is. Random order comes from the raw
stream of Philox, which no NumPy release may change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.data.rows import numbered, refuse_missing
from hotloop.errors import ShapeError

Rows = npt.NDArray[np.int64]

_STREAM = 0x73706C6974  # "split": keeps these random numbers apart from any others of the same seed


def random_order(n: int, seed: int) -> Rows:
    """A permutation of n rows: the order of n 64-bit random numbers."""
    key = (seed & (2**64 - 1)) | (_STREAM << 64)
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable").astype(np.int64)


def stratified(order: Rows, labels: Rows, counts: Sequence[int]) -> list[Rows]:
    """Deal each class, in random order, to the parts; rows within a part stay in random order."""
    table = round_table(np.bincount(labels), counts)  # (classes, 3)
    by_class = np.argsort(labels[order], kind="stable")
    part_of = np.empty(len(order), np.int64)  # of order[i]
    part_of[by_class] = np.repeat(np.tile(np.arange(3), len(table)), table.ravel())
    return [order[part_of == part] for part in range(3)]


def by_groups(order: Rows, groups: Rows, labels: Rows | None, counts: Sequence[int]) -> list[Rows]:
    """Whole groups to parts, the largest first, each to the part that lacks its rows the most.

    What is kept small is the sum over parts and classes of (rows - share)^2 / share; without labels all rows
    are one class. Groups of one size come in random order. No part stays empty. Raises `ShapeError` for
    fewer than three groups.
    """
    sizes, place = _groups_in(order, groups)  # place: of each row of order, its group's number in `sizes`
    if len(sizes) < 3:
        raise ShapeError(
            f"[split] {len(sizes)} groups cannot fill three parts; allowed: 3 or more; split without groups="
        )
    classes = np.zeros(len(order), np.int64) if labels is None else labels[order]
    by_group = np.argsort(place, kind="stable")
    ends = np.cumsum(sizes)
    table = _Shares(classes, counts)
    part_of = np.empty(len(sizes), np.int64)
    biggest_first = np.argsort(-sizes, kind="stable")
    # Single rows are dealt at once, but for the last thousand, which even out what the others left uneven.
    bulk = biggest_first[int((sizes > 1).sum()) : max(len(sizes) - 1000, 0)]
    part_of[bulk] = table.deal_singles(classes[by_group[ends[bulk] - 1]])
    waiting = np.setdiff1d(biggest_first, bulk, assume_unique=True) if len(bulk) else biggest_first
    waiting = waiting[np.argsort(-sizes[waiting], kind="stable")]
    for left, group in zip(range(len(waiting), 0, -1), waiting.tolist(), strict=True):
        rows = classes[by_group[ends[group] - sizes[group] : ends[group]]]
        part_of[group] = table.deal_group(rows, left)
    return [order[part_of[place] == part] for part in range(3)]


class _Shares:
    """How many rows of each class each part has more than its share: what dealing by groups keeps small."""

    def __init__(self, classes: Rows, counts: Sequence[int]) -> None:
        self._n_classes = int(classes.max()) + 1
        self._share = np.outer(counts, np.bincount(classes, minlength=self._n_classes)) / len(classes)
        self._excess = -self._share  # (3, classes)
        self._empty = {0, 1, 2}

    def deal_group(self, rows: Rows, groups_left: int) -> int:
        """The part for a group whose rows have these classes; an empty part if no more groups are left than
        parts are empty."""
        added = np.bincount(rows, minlength=self._n_classes)
        cost = ((2 * self._excess + added) * added / self._share).sum(axis=1)
        allowed = self._empty if groups_left <= len(self._empty) else (0, 1, 2)
        part = min(sorted(allowed), key=lambda p: cost[p])
        self._excess[part] += added
        self._empty.discard(part)
        return part

    def deal_singles(self, classes: Rows) -> Rows:
        """The parts (k,) for k groups of one row each: for every class as its parts still lack it."""
        parts = np.empty(len(classes), np.int64)
        for label in np.unique(classes):
            mine = np.flatnonzero(classes == label)
            lacking = np.maximum(-self._excess[:, label], 0)
            cuts = np.rint(np.cumsum(lacking)[:2] / max(lacking.sum(), 1e-300) * len(mine)).astype(np.int64)
            parts[mine] = np.searchsorted(cuts, np.arange(len(mine)), side="right")
            self._excess[:, label] += np.bincount(parts[mine], minlength=3)
        self._empty -= set(parts.tolist())
        return parts


def _groups_in(order: Rows, groups: Rows) -> tuple[Rows, Rows]:
    """Rows of each group, numbered as they first appear in ``order``, and the group (n,) of each row of it."""
    _, first, place, sizes = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    by_first = np.argsort(first)
    rank = np.empty_like(by_first)
    rank[by_first] = np.arange(len(first))
    return sizes[by_first].astype(np.int64), rank[place.reshape(-1)].astype(np.int64)


def by_time(times: npt.NDArray[Any], counts: Sequence[int]) -> list[Rows]:
    """The earliest rows first; a cut moves to the nearest change of the time, so that ties stay together.

    Rows of a part are in order of time. Raises `ShapeError` if fewer than three different times are there.
    """
    moments = comparable_times(times)
    order = np.argsort(moments, kind="stable").astype(np.int64)
    changes = np.flatnonzero(np.diff(moments[order])) + 1  # where a part may begin
    if len(changes) < 2:
        raise ShapeError(f"[split] {len(changes) + 1} different times cannot make three parts; at least 3")
    wanted = np.cumsum(counts)[:2]
    first = int(np.argmin(np.abs(changes[:-1] - wanted[0])))  # a change is left for the second cut
    second = first + 1 + int(np.argmin(np.abs(changes[first + 1 :] - wanted[1])))
    return np.split(order, [changes[first], changes[second]])


def comparable_times(times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers or dates (n,) as they are, ISO 8601 text as dates. Raises `NonFiniteError` for a missing one and
    `ValueError` for text that is no date."""
    if times.dtype.kind in "OUS":
        try:
            times = np.array([None if t is None else str(t) for t in times], "datetime64[us]")
        except ValueError as error:
            raise ValueError(
                f"[split] time must be numbers, dates or ISO 8601 text such as 2026-11-21, got text: {error}"
            ) from None
    refuse_missing(times, "time", "split")
    return numbered(times)


def joined(first: Rows, second: Rows) -> Rows:
    """The finest groups that are coarser than both: rows are together if a chain of equal numbers in either
    leads from one to the other.

    >>> joined(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist()
    [0, 0, 0, 3]
    """
    label = np.arange(len(first))
    while True:
        before = label
        for numbers in (first, second):
            least = np.full(int(numbers.max(initial=0)) + 1, len(first))
            np.minimum.at(least, numbers, label)
            label = least[numbers]
        label = label[label]  # halves the length of a chain
        if np.array_equal(label, before):
            return label.astype(np.int64)


def round_table(class_rows: Rows, part_rows: Sequence[int]) -> Rows:
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
