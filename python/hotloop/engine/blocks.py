# SPDX-License-Identifier: Apache-2.0
"""An engine for data that come in pieces: streams of blocks, and rows that are converted when they are read.

Each piece is a source of its own for the same native loop, which is told how many batches came before: steps,
parameters of the schedule, random numbers and sums are those of one pass over an array.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hotloop import _core
from hotloop import metrics as metrics_
from hotloop.data import border, lazy
from hotloop.engine.native import Data, NativeEngine, NativeTrainPass, PassResult, TrainPass
from hotloop.runtime.executable import Executable
from hotloop.runtime.session import Doubles


class Piece(NamedTuple):
    """Whole batches of an epoch, from number ``first`` on: rows of all inputs, ``size`` of them a batch."""

    first: int
    arrays: border.Arrays
    size: int

    @property
    def batches(self) -> int:
        """How many batches it holds."""
        return -(-border.row_count(self.arrays) // self.size)


class Pieces(Protocol):
    """Gives the pieces of epochs. Only the last batch of an epoch may have fewer rows than the others."""

    def epoch(self, epoch: int, batch: int) -> Iterator[Piece]:
        """The pieces of an epoch (0-based) in order, from the one with that batch on."""
        ...


class PiecewiseData(Data):
    """Data that know their pieces, of which ``arrays`` are a sample."""

    def pieces(self, batch_size: int, *, shuffle: bool, seed: int, run: int) -> Pieces:
        """The pieces of the epochs of one run."""
        raise NotImplementedError


@dataclass(frozen=True)
class RowPieces:
    """Pieces of data some of whose arrays are `LazyRows`, in the order in which a pass over arrays reads them."""

    data: Data
    batch_size: int
    shuffle: bool
    seed: int
    run: int

    def epoch(self, epoch: int, batch: int) -> Iterator[Piece]:
        arrays, size, n = self.data.arrays, self.batch_size, self.data.rows
        count = lazy.rows_at_once(arrays, size)
        for first in range(batch * size, n, count):
            some = min(count, n - first)
            rows: Any = slice(first, first + some)
            if self.shuffle:
                rows = _core.permutation(
                    n, seed=self.seed, run=self.run, epoch=epoch, first=first, count=some
                )
            yield Piece(first // size, {name: array[rows] for name, array in arrays.items()}, size)


@dataclass(frozen=True)
class BlockEngine(NativeEngine):
    """The native engine; data that are arrays go through it as ever."""

    def _pieces(self, data: Data, batch_size: int, *, shuffle: bool = False, run: int = 0) -> Pieces | None:
        if isinstance(data, PiecewiseData):
            return data.pieces(batch_size, shuffle=shuffle, seed=self.session.seed, run=run)
        if any(map(lazy.is_lazy, data.arrays.values())):
            return RowPieces(data, batch_size, shuffle, self.session.seed, run)
        return None

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> TrainPass:
        pieces = self._pieces(data, batch_size, shuffle=shuffle, run=run)
        if pieces is None:
            return NativeTrainPass(self, data, batch_size, shuffle=shuffle, run=run)
        return BlockTrainPass(self, data, batch_size, shuffle=shuffle, run=run, pieces=pieces)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        pieces = self._pieces(data, self.session.eval_rows)
        if pieces is None:
            return super().evaluate(data, stop)
        exe = self.session.program(self.graph, self.eval_spec(data))
        params = self.session.params_table(exe.plan, self.graph)
        status: Any = "done"
        for piece in pieces.epoch(0, 0):
            _, status = self.session.run_epoch(
                exe, exe.source(piece.arrays), batch_size=piece.size, params=params, stop=stop,
                before=piece.first,
            )  # fmt: skip
            if status == "stopped":
                break
        return PassResult(status, metrics_.finalize(exe.plan.metrics, exe.program.metrics, self.metrics))


class BlockTrainPass(NativeTrainPass):
    """A training pass, piece after piece; see `TrainPass`."""

    def __init__(
        self, engine: NativeEngine, data: Data, batch_size: int, *, shuffle: bool, run: int, pieces: Pieces
    ) -> None:
        self._pieces, self._n = pieces, data.steps(batch_size)
        self._place = (-1, -1)  # the epoch and batch that come next
        self._rest: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._source: Any = None
        super().__init__(engine, data, batch_size, shuffle=shuffle, run=run)

    def _connect(self, exe: Executable) -> None:
        self._place = (-1, -1)  # the piece in hand is bound to another program

    def _batches(
        self, epoch: int, params: Doubles, stop: Any, deadline_s: float | None, first_batch: int, batches: int
    ) -> tuple[int, str]:
        end = None if deadline_s is None else time.perf_counter() + deadline_s
        last = self._n if batches < 0 else min(self._n, first_batch + batches)
        batch, status = first_batch, "done"
        while batch < last:
            left = None if end is None else max(end - time.perf_counter(), 0.0)
            steps, status = self._run_piece(epoch, batch, last - batch, params, stop, left)
            batch += steps
            if status in ("diverged", "stopped", "time"):
                return batch - first_batch, status
            if batch < last and stop is not None and stop.is_set():
                return batch - first_batch, "stopped"
            if batch < last and end is not None and time.perf_counter() >= end:
                return batch - first_batch, "time"
        if batch == self._n:
            next(self._rest, None)  # lets a stream that was counted tell that there is more
            self._piece = self._source = None
        return batch - first_batch, "done" if batch == self._n else "paused"

    def _run_piece(
        self, epoch: int, batch: int, most: int, params: Doubles, stop: Any, left: float | None
    ) -> tuple[int, str]:
        """The batches of one piece, from ``batch`` of the epoch on, ``most`` at most."""
        exe, session = self.executable, self._engine.session
        piece = self._at(epoch, batch)
        inside = batch - piece.first
        count = min(piece.batches - inside, most)
        steps, status = exe.epoch(
            self._source, batch_size=piece.size, shuffle=False, seed=session.seed, run=self._run, epoch=epoch,
            step=epoch * self._n, first_batch=inside, batches=count, params=params,
            accumulate=self._engine.accumulate, stop=stop, deadline_s=left, check_finite=True,
            before=piece.first, more=piece.first + piece.batches < self._n,
        )  # fmt: skip
        self._place = (epoch, batch + steps)
        return steps, status

    def _at(self, epoch: int, batch: int) -> Piece:
        """The piece with that batch: the one in hand, or one that is read now."""
        if self._place != (epoch, batch):
            self._rest, self._piece = self._pieces.epoch(epoch, batch), None
        while self._piece is None or batch >= self._piece.first + self._piece.batches:
            self._piece = self._source = None  # two pieces at once would be twice the memory
            self._piece = next(self._rest)
            self._source = self.executable.source(self._piece.arrays)
        return self._piece
