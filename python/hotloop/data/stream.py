# SPDX-License-Identifier: Apache-2.0
"""`Stream`: data that come in blocks and are never in memory as a whole.

An epoch is what the source gives from its beginning. The blocks are joined and cut into batches again, so that a
run depends on their rows and not on their borders; or each is a batch of its own, as those of torch's
`DataLoader` are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hotloop.arguments import count
from hotloop.data.columns import Columns, as_columns, is_frame
from hotloop.data.foreign import is_sparse
from hotloop.errors import ShapeError

_ALLOWED = "(X, y) or (X, y, weight)"


class Stream:
    """Blocks ``(X, y)`` or ``(X, y, weight)`` of any number of rows, for `Trainer.fit` and `evaluate`; `predict`
    also takes blocks that are X alone.

    Args:
        source: what gives the blocks of an epoch whenever it is iterated: a list, a torch `DataLoader`, an object
            with ``__iter__``; a function without arguments that returns an iterator; or an iterator (a
            generator, say), which serves for one epoch only.
        rows: of an epoch. The source is left there, so it may be endless. None: the source is read once
            before the run, to count them.
        own_batches: each block is one batch, whatever ``batch_size`` says; None: if the source is a `DataLoader`.

    X, y and weight are whatever `Trainer.fit` takes, frames too; each block is checked when it comes.

    >>> blocks = [(np.ones((4, 2)), np.zeros(4)), (np.zeros((3, 2)), np.ones(3))]
    >>> Stream(blocks)
    Stream(list)
    >>> Stream(lambda: iter(blocks), rows=7)
    Stream(function, rows=7)
    """

    def __init__(self, source: Any, *, rows: int | None = None, own_batches: bool | None = None) -> None:
        if not streams(source):
            raise TypeError(
                f"[Stream] source must give blocks {_ALLOWED}, got {type(source).__name__}; allowed: an iterable of "
                "them, or a function that returns an iterator"
            )
        self.source = source
        self.rows = None if rows is None else count("Stream", "rows", rows, low=1)
        self.own_batches = is_loader(source) if own_batches is None else bool(own_batches)
        if self.own_batches and rows is not None:
            raise ValueError(
                "[Stream] rows is for blocks that are cut into batches; a stream of batches ends where its source "
                "does: leave it out, or set own_batches=False"
            )

    @property
    def once(self) -> bool:
        """Whether the source can be read one time only, as a generator."""
        return hasattr(self.source, "__next__")

    @property
    def length(self) -> int | None:
        """How many blocks the source says it has; None if it does not say."""
        try:
            return len(self.source)
        except TypeError:  # functions and generators have none, and a loader may not know
            return None

    @property
    def most_rows(self) -> int:
        """How many rows the data set of a loader has, and its batches at most."""
        try:
            return len(self.source.dataset)
        except (AttributeError, TypeError):
            return sys.maxsize

    def open(self) -> Iterator[Any]:
        """The blocks of an epoch, from the first one on. Raises what the source raises."""
        return iter(self.source() if callable(self.source) and not _iterable(self.source) else self.source)

    def __repr__(self) -> str:
        told = "" if self.rows is None else f", rows={self.rows}"
        return f"Stream({type(self.source).__name__}{told}{', own_batches=True' * self.own_batches})"


def _iterable(value: Any) -> bool:
    return hasattr(value, "__iter__")


def is_loader(value: Any) -> bool:
    """Whether it is a torch `DataLoader`; torch is not imported for it."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, data.DataLoader)


def streams(value: Any) -> bool:
    """Whether it may give blocks: anything to iterate, or to call, but no array, table, mapping or text.

    >>> streams([]), streams(iter([])), streams(np.ones(3)), streams({"x": 1})
    (True, True, False, False)
    """
    if isinstance(value, (Mapping, str, bytes)) or is_frame(value) or is_sparse(value):
        return False
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        return False
    return _iterable(value) or callable(value) or hasattr(value, "__getitem__")


def is_stream(value: Any) -> bool:
    """Whether it can be nothing else: a `Stream`, a `DataLoader` or an iterator."""
    return isinstance(value, Stream) or hasattr(value, "__next__") or is_loader(value)


def as_stream(value: Any) -> Stream:
    """The stream itself, or one over the value. Raises `TypeError`."""
    return value if isinstance(value, Stream) else Stream(value)


def parts(block: Any, number: int, where: str) -> tuple[Any, Any, Any]:
    """(X, y, weight or None) of a block. Raises `TypeError`."""
    if not isinstance(block, (tuple, list)) or len(block) not in (2, 3):
        got = (
            f"{type(block).__name__}, {len(block)} long,"
            if isinstance(block, (tuple, list))
            else type(block).__name__
        )
        raise TypeError(
            f"[{where}] block {number} of the stream is of type {got}; allowed: {_ALLOWED}; put it together in the source, or "
            "in the loader's collate_fn"
        )
    X, y, weight = (*block, None)[:3]
    return X, y, weight


def features(block: Any) -> Any:
    """X of a block that may be X alone."""
    return block[0] if isinstance(block, (tuple, list)) and 1 <= len(block) <= 3 else block


def rows_of(X: Any, number: int, where: str) -> int:
    """How many rows a block has. Raises `ShapeError`."""
    first: Any = next(iter(X.values()), None) if isinstance(X, Mapping) else X
    if type(first).__name__ == "LazyFrame":
        first = as_columns(first, where=where)
    if isinstance(first, Columns):
        return first.rows
    shape = getattr(first, "shape", None)
    try:
        return int(shape[0]) if shape else len(first)
    except (TypeError, IndexError):
        raise ShapeError(
            f"[{where}] X of block {number} of the stream has no rows: it is a {type(first).__name__}; allowed: arrays"
        ) from None
