# SPDX-License-Identifier: Apache-2.0
"""From a stream to the batches of an epoch: each block checked when it comes, then cut, or taken as one batch.

What is needed before the first step is known before it: the rows of an epoch by what the source says or by
counting, the model's graph and the loss by its first block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hotloop import _core
from hotloop.data import border
from hotloop.data.stream import Stream, parts, rows_of
from hotloop.engine.blocks import Piece, PiecewiseData
from hotloop.engine.native import Data
from hotloop.errors import DTypeError, HotloopError, ShapeError
from hotloop.fit.setup import ResolvedLoss, check_batches, check_data
from hotloop.graph import Graph
from hotloop.runtime.session import Session

#: Makes (X, y) of a block ready for the border, such as a frame's columns.
Prepare = Callable[[Any, Any], tuple[Any, Any]]
_ANEW = "give a function that returns a new iterator: hl.data.Stream(lambda: blocks())"
#: Blocks of equal size in one epoch should not be shuffled alike: their numbers, far apart, join the epoch's.
_SPREAD, _WORD = 0x9E3779B1, 0xFFFFFFFF


class Feed:
    """The checked blocks of a stream. The first one is at hand from the start, and is not read again."""

    def __init__(self, session: Session, stream: Stream, loss: Any, prepare: Prepare, where: str) -> None:
        if getattr(loss, "class_weight", None) == "balanced":
            raise ValueError(
                f"[{where}] class_weight='balanced' counts all labels, which a stream does not show in advance; give "
                "the weights themselves"
            )
        self._session, self._stream, self._prepare, self._where = session, stream, prepare, where
        self._open = stream.open()
        first = next(self._open, None)
        if first is None:
            raise ShapeError(f"[{where}] the stream gave no block; at least one is needed")
        self.loss: Any = loss
        self.graph: Graph
        self.first = self._check(first, 0)
        self._fresh = True  # nothing was read beyond the first block

    def _check(self, block: Any, number: int) -> Data:
        X, y, weight = parts(block, number, self._where)
        try:
            X, y = self._prepare(X, y)
            data, graph, loss = check_data(
                self._session, X, y, weight, self.loss, where=self._where, name=f"block {number}", batch=True
            )
        except HotloopError as error:
            if f"block {number} " in str(error):
                raise
            raise type(error)(f"[{self._where}] block {number} of the stream: {error}") from None
        if number == 0:
            self.graph, self.loss = graph, loss
        return data

    def blocks(self) -> Iterator[border.Arrays]:
        """The blocks of one epoch. Raises as the border does, and for a block unlike the first one."""
        if self._fresh:
            rest = self._open
        elif self._stream.once:
            raise ValueError(f"[{self._where}] {self._stream!r} can be read once, and it was; {_ANEW}")
        else:
            rest = self._stream.open()
        if self._fresh:
            self._fresh = False
            yield self.first.arrays
        for number, block in enumerate(rest, start=int(rest is self._open)):
            data = self._check(block, number)
            self._compare(data, number)
            yield data.arrays

    def _compare(self, data: Data, number: int) -> None:
        """Refuse what the program of the first block could not take."""
        if data.kind != self.first.kind or data.arrays.keys() != self.first.arrays.keys():
            raise ShapeError(
                f"[{self._where}] block {number} of the stream has {_names(data)}, block 0 had {_names(self.first)}; "
                "all blocks must have the same"
            )
        for name, array in data.arrays.items():
            expected = self.first.arrays[name]
            if array.dtype != expected.dtype or array.shape[1:] != expected.shape[1:]:
                raise DTypeError(
                    f"[{self._where}] block {number} of the stream has {name} of {array.dtype} {array.shape}, block 0 had "
                    f"{expected.dtype} {expected.shape}; only the rows may differ in number"
                )


def _names(data: Data) -> str:
    kind = "labels" if data.kind == "index" else "numbers"
    return f"{', '.join(sorted(data.arrays.keys() - {'target'}))} and {kind} as y"


@dataclass(frozen=True)
class Extent:
    """How long an epoch is. rows: at most, of batches of their own; None: unknown, only to be evaluated.
    batches, largest: how many, and the rows of the largest, where each block is one."""

    rows: int | None = None
    batches: int | None = None
    largest: int = 1
    counted: bool = False


@dataclass(frozen=True)
class StreamData(PiecewiseData):
    """A stream as data: ``arrays`` are its first block."""

    feed: Feed = field(kw_only=True)
    extent: Extent = field(kw_only=True)

    @property
    def rows(self) -> int:
        return self.extent.rows or border.row_count(self.arrays)

    @property
    def sample(self) -> Data:
        return Data(self.arrays, self.kind)

    def steps(self, batch_size: int) -> int:
        return self.extent.batches or -(-self.rows // batch_size)

    def pieces(self, batch_size: int, *, shuffle: bool, seed: int, run: int) -> StreamPieces:
        return StreamPieces(self.feed, self.extent, batch_size, shuffle, seed, run)


@dataclass(frozen=True)
class StreamPieces:
    """See `blocks.Pieces`. To go on in mid-epoch, the batches before are read and passed over."""

    feed: Feed
    extent: Extent
    batch_size: int
    shuffle: bool
    seed: int
    run: int

    def epoch(self, epoch: int, batch: int) -> Iterator[Piece]:
        pieces = self._whole(epoch) if self.extent.batches else self._cut(epoch)
        for piece in pieces:
            if piece.first + piece.batches > batch:
                yield piece

    def _whole(self, epoch: int) -> Iterator[Piece]:
        """Each block is a batch."""
        number = 0
        for arrays in self.feed.blocks():
            rows = border.row_count(arrays)
            if rows > self.batch_size:
                raise ShapeError(
                    f"[fit] batch {number} of the stream has {rows} rows, and {self.batch_size} are the most that it "
                    "announced; keep to that, or leave own_batches out"
                )
            if rows == 1:
                check_batches(self.feed.graph, 1, 1)
            if number == self.extent.batches:
                raise self._length_error(epoch, "more batches than the", number)
            yield Piece(number, arrays, rows)
            number += 1
        if number < (self.extent.batches or 0):
            raise self._length_error(epoch, f"{number} batches, not the", self.extent.batches)

    def _cut(self, epoch: int) -> Iterator[Piece]:
        """All blocks one after the other, in batches of ``batch_size``."""
        size, total, seen, batch = self.batch_size, self.extent.rows, 0, 0
        left: border.Arrays = {}
        for number, arrays in enumerate(self.feed.blocks()):
            rows = border.row_count(arrays)
            if total is not None:
                if self.extent.counted and seen + rows > total:
                    raise self._length_error(epoch, "more rows than the", total)
                rows = min(rows, total - seen)
            arrays = self._chosen(arrays, rows, epoch, number)
            seen += rows
            if left:
                left, arrays = _filled(left, arrays, size)
                if border.row_count(left) == size:
                    yield Piece(batch, left, size)
                    left, batch = {}, batch + 1
            whole = border.row_count(arrays) // size * size
            if whole:
                yield Piece(batch, {name: a[:whole] for name, a in arrays.items()}, size)
                batch += whole // size
            if whole < border.row_count(arrays):  # a copy, since the source may use its memory again
                left = {name: a[whole:].copy() for name, a in arrays.items()}
            if seen == total and not self.extent.counted:
                break
        if total is not None and seen < total:
            raise self._length_error(epoch, f"{seen} rows, not the", total)
        if left:
            yield Piece(batch, left, size)

    def _chosen(self, arrays: border.Arrays, rows: int, epoch: int, number: int) -> border.Arrays:
        """The first rows of a block, in the epoch's order."""
        if not self.shuffle:
            return {name: a[:rows] for name, a in arrays.items()}
        key = (epoch + number * _SPREAD) & _WORD
        order = _core.permutation(rows, seed=self.seed, run=self.run, epoch=key)
        return border.take(arrays, order)

    def _length_error(self, epoch: int, got: str, expected: int | None) -> ShapeError:
        how = "counted before the run" if self.extent.counted else "announced"
        return ShapeError(
            f"[fit] the stream gave {got} {expected} that were {how}, in epoch {epoch + 1}; every epoch must have as "
            "many; tell a number that all have: hl.data.Stream(source, rows=...)"
        )


def _filled(left: border.Arrays, arrays: border.Arrays, size: int) -> tuple[border.Arrays, border.Arrays]:
    """What was left of the blocks before with so many rows of the next one as a batch lacks, and the others."""
    need = size - border.row_count(left)
    joined = {name: np.concatenate([a, arrays[name][:need]]) for name, a in left.items()}
    return joined, {name: a[need:] for name, a in arrays.items()}


def open_stream(
    session: Session, stream: Stream, loss: Any, prepare: Prepare, *, where: str, epochs: int = 0
) -> tuple[StreamData, Graph, ResolvedLoss, int | None]:
    """A stream as data, its graph and loss, and the rows of its largest batch if its batches are its own.

    ``epochs``: how often it will be trained on; 0: it is read once, however long. Raises as `check_data`.
    """
    if stream.once and epochs > 1:
        raise ValueError(f"[{where}] {stream!r} can be read once, and there are {epochs} epochs; {_ANEW}")
    extent = _extent(stream, where) if epochs else Extent()
    feed = Feed(session, stream, loss, prepare, where)
    data = StreamData(feed.first.arrays, feed.first.kind, feed=feed, extent=extent)
    return data, feed.graph, feed.loss, extent.largest if extent.batches else None


def _extent(stream: Stream, where: str) -> Extent:
    """How long an epoch is: as the stream says, else counted."""
    if stream.rows is not None:
        return Extent(stream.rows)
    size = getattr(stream.source, "batch_size", None)
    if stream.own_batches and stream.length and isinstance(size, int):
        return Extent(min(stream.length * size, stream.most_rows), stream.length, size)
    if stream.once:
        raise ValueError(
            f"[{where}] the rows of an epoch must be known, and {stream!r} can be read once: give them, "
            "hl.data.Stream(source, rows=...), or a function that returns a new iterator"
        )
    sizes = [
        rows_of(parts(block, number, where)[0], number, where) for number, block in enumerate(stream.open())
    ]
    if not sizes:
        raise ShapeError(f"[{where}] the stream gave no block; at least one is needed")
    if stream.own_batches:
        return Extent(sum(sizes), len(sizes), max(sizes), counted=True)
    return Extent(sum(sizes), counted=True)
