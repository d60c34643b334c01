# SPDX-License-Identifier: Apache-2.0
"""Columns of text: spellings of one category are one, rare ones are pooled, unknown ones are never an error.

Slot 0 is "other": what was rare in training or is seen for the first time. The categories follow from 1 in
order of their keys, and after them what is missing, where training rows missed it. All work is done on the
distinct texts; the rows only pass through dictionaries, in C.
"""

from __future__ import annotations

import heapq
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Encoding = Literal["onehot", "embedding", "constant"]

_NUMERAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
#: In a column of numerals these say that a number is missing; elsewhere they are categories like any other.
_MARKS = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})


@dataclass(frozen=True)
class Categories:
    """The categories of one column.

    keys (k): the cleaned texts of slots 1 to k, in order; names (k): how the training rows wrote them most
    often, tidied. missing: the slot of a missing value, k + 1 where it is a category of its own. pooled: training
    rows held rare categories, so that "other" was learnt.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    missing: int
    pooled: bool
    encoding: Encoding

    @property
    def size(self) -> int:
        """The largest slot: k, or k + 1 where missing is a category."""
        return max(len(self.keys), self.missing)

    @property
    def width(self) -> int:
        """Columns of the one-hot form: every category, and "other" only if it was learnt."""
        if self.encoding == "constant":
            return 1
        return self.size + self.pooled if self.encoding == "onehot" else 0

    def labels(self, feature: str) -> tuple[str, ...]:
        """The names of those columns."""
        if self.encoding == "constant":
            return (feature,)
        slots = [*self.names, *(["missing"] if self.missing > len(self.keys) else [])]
        return tuple(f"{feature}={slot}" for slot in [*slots, *(["other"] if self.pooled else [])])[
            : self.width
        ]

    @cached_property
    def _slot(self) -> dict[str, int]:
        return {key: slot for slot, key in enumerate(self.keys, 1)}

    def slots(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """The slot of each text (n,), between 0 and `size`."""
        distinct, codes = factorize(values)
        return np.asarray(self._slots_of(distinct)[codes])

    def _slots_of(self, distinct: Sequence[str | None]) -> NDArray[np.intp]:
        slot = self._slot
        return np.array([slot.get(key, 0) if key else self.missing for key in map(clean, distinct)], np.intp)

    def unknown(self, values: NDArray[Any]) -> dict[str, int]:
        """Texts without a category of their own, and how many rows have each."""
        distinct, codes = factorize(values)
        counts = np.bincount(codes, minlength=len(distinct))
        slots = self._slots_of(distinct)
        return {
            text: int(n) for text, n, slot in zip(distinct, counts, slots, strict=True) if text and not slot
        }

    def onehot(self, values: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Set ``out`` (n, width), all 0, to 1 in the column of the category; none for one never seen before."""
        if self.encoding == "constant":
            return
        slots = self.slots(values)
        rows = np.arange(len(slots))
        other = slots == 0
        if other.any():
            if self.pooled:
                slots[other] = self.size + 1
            else:
                rows, slots = rows[~other], slots[~other]
        out[rows, slots - 1] = 1


def clean(text: str | None) -> str:
    """The key of a category: Unicode NFC, case folded, blanks within as one, none around; "" for missing.

    >>> clean("  Cafe\\u0301 \\t NOIR"), clean(None)
    ('café noir', '')
    """
    if text is None:
        return ""
    if text.isascii():
        return " ".join(text.lower().split())
    return _tidy(_tidy(text).casefold())


def _tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def factorize(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    """The distinct values in order of appearance, and the index of each row's value among them.

    >>> factorize(np.array(["b", "a", None, "b"], object))
    (['b', 'a', None], array([0, 1, 2, 0]))
    """
    cells = values.tolist()
    index: defaultdict[Any, int] = defaultdict(itertools.count().__next__)  # a new value gets the next number
    codes = np.fromiter(map(index.__getitem__, cells), np.intp, len(cells))
    return list(index), codes


def numerals(distinct: Sequence[str | None]) -> NDArray[np.float64] | None:
    """The numbers that these texts are, NaN for what is missing; None unless all are plain numerals.

    "3", "-0.5" and "1e6" are; "1,200", "3.5 kg" and "1_000" are not, and neither is "007", which names
    something. Beside numerals, "", "?", "-", "NA", "N/A", "NaN", "null" and "none" mark a missing number.

    >>> numerals(["1", " 2.5", "NA", None])
    array([1. , 2.5, nan, nan])
    >>> numerals(["1,200"]) is None and numerals(["NA"]) is None
    True
    """
    numbers = np.full(len(distinct), np.nan)
    found = False
    for i, text in enumerate(distinct):
        bare = "" if text is None else text.strip()
        if _NUMERAL.fullmatch(bare):
            if _LEADING_ZERO.match(bare):
                return None
            numbers[i] = float(bare)
            found = True
        elif bare.lower() not in _MARKS:
            return None
    return numbers if found else None


#: So many examples are kept for a report.
N_SHOWN = 5


@dataclass(frozen=True)
class Learnt:
    """What one column of text taught: its categories, and what is worth reporting."""

    categories: Categories
    n_missing: int
    spellings: dict[
        str, tuple[tuple[str, ...], int]
    ]  # a category -> all the ways it is written, and its rows
    rare: tuple[str, ...]  # the first N_SHOWN of the pooled categories
    n_rare: int  # how many there are, and the rows that hold them
    n_rare_rows: int


def learn(
    distinct: Sequence[str | None],
    codes: NDArray[np.intp],
    *,
    own_missing: bool,
    rare: int,
    max_onehot: int,
    encoding: Literal["auto", "onehot", "embedding"],
) -> Learnt:
    """Learn a factorised column: categories in fewer than ``rare`` rows are pooled.

    ``own_missing`` makes a category of what is missing, if anything is; otherwise it counts as the most
    frequent category.
    """
    counts = np.bincount(codes, minlength=len(distinct)).tolist()
    total, ways, n_missing = _counted(distinct, counts)
    keys = sorted(key for key, count in total.items() if count >= rare)
    pooled = {key: count for key, count in total.items() if count < rare}
    most = 1 + max(range(len(keys)), key=lambda i: total[keys[i]]) if keys else 0
    missing = len(keys) + 1 if own_missing and n_missing else most
    size = max(len(keys), missing)
    if encoding == "auto":
        encoding = "onehot" if size <= max_onehot else "embedding"
    categories = Categories(
        tuple(keys),
        tuple(_usual(ways[key]) for key in keys),
        missing,
        bool(pooled),
        "constant" if size + bool(pooled) <= 1 else encoding,
    )
    several = {_usual(way): sorted(way, key=lambda w: -w[1]) for way in ways.values() if len(way) > 1}
    return Learnt(
        categories,
        n_missing,
        {
            name: (tuple(text for text, _ in way), sum(rows for _, rows in way))
            for name, way in several.items()
        },
        tuple(_usual(ways[key]) for key in heapq.nlargest(N_SHOWN, pooled, key=pooled.__getitem__)),
        len(pooled),
        sum(pooled.values()),
    )


def _counted(
    distinct: Sequence[str | None], counts: Sequence[int]
) -> tuple[dict[str, int], dict[str, tuple[tuple[str, int], ...]], int]:
    """Of each key the rows, and how they write it with the rows of each way; and the rows that say nothing."""
    total: dict[str, int] = {}
    ways: dict[str, tuple[tuple[str, int], ...]] = {}
    n_missing = 0
    for text, count in zip(distinct, counts, strict=True):
        key = clean(text)
        if text is None or not key:
            n_missing += count
        elif key in total:
            total[key] += count
            ways[key] += ((text, count),)
        else:
            total[key], ways[key] = count, ((text, count),)
    return total, ways, n_missing


def _usual(ways: Sequence[tuple[str, int]]) -> str:
    """How a category was written in most rows, blanks aside; of equals the first."""
    rows: dict[str, int] = {}
    for text, count in ways:
        tidy = _tidy(text)
        rows[tidy] = rows.get(tidy, 0) + count
    return max(rows, key=rows.__getitem__)
