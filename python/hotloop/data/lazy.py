# SPDX-License-Identifier: Apache-2.0
"""Rows that are converted when they are read: sparse matrices, and files that are mapped into memory.

Such data may be larger than memory once they are dense float32. Checks and digests read them in blocks of a
few megabytes; training and evaluation ask for the rows of some batches at a time (engine/blocks.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop.errors import DTypeError, NonFiniteError, ShapeError

Array = NDArray[Any]

#: Bytes of one block of converted rows: large beside what a call of Python costs, small beside a machine.
BLOCK_BYTES = 4 << 20


class LazyRows:
    """Rows (n, ...) of ``source`` as ``dtype``; indexing by rows reads, converts and gives a plain array.

    ``rows``: the numbers of the source's rows that these are, in order; None for all.
    """

    def __init__(self, source: Any, dtype: DTypeLike, rows: Array | None = None) -> None:
        self.source, self.rows = source, rows
        self.dtype = np.dtype(dtype)
        self.shape = (source.shape[0] if rows is None else len(rows), *source.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of all rows, converted."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> Array:
        """The given rows (a slice, or numbers (k,)), converted, C-contiguous."""
        part = self.source[rows if self.rows is None else self.rows[rows]]
        return np.ascontiguousarray(part.toarray() if hasattr(part, "toarray") else part, self.dtype)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """All rows at once, for those who have no use for blocks."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def astype(self, dtype: DTypeLike) -> LazyRows:
        """The same rows as another type."""
        return LazyRows(self.source, dtype, self.rows)

    def take(self, rows: Array) -> LazyRows:
        """Some of the rows, which are not read yet."""
        return LazyRows(self.source, self.dtype, rows if self.rows is None else self.rows[rows])


def is_lazy(value: Any) -> bool:
    """Whether rows of it are to be read in blocks.

    >>> is_lazy(np.eye(3)), is_lazy(LazyRows(np.eye(3), np.float32))
    (False, True)
    """
    return isinstance(value, LazyRows)


def is_mapped(value: Any) -> bool:
    """Whether it is a file in memory, which should not be copied whole."""
    return isinstance(value, np.memmap)


def is_readable(array: Any) -> bool:
    """Whether kernels can gather rows from it as it lies."""
    known = array.dtype in (np.float32, np.float64, np.uint8, np.int32, np.int64)
    return bool(known and array.dtype.isnative and array.flags.c_contiguous)


def blocks(array: Any, itemsize: int | None = None) -> Iterator[tuple[int, Array]]:
    """(number of the first row, rows) of an array or `LazyRows`, a few megabytes at a time."""
    row = int(np.prod(array.shape[1:], dtype=np.int64))
    multiple = 64 // math.gcd(row, 64)  # rows; the pieces of a fingerprint are multiples of 64 bytes
    bytes_ = row * multiple * (itemsize or array.dtype.itemsize)
    count = max(BLOCK_BYTES // max(bytes_, 1), 1) * multiple
    for first in range(0, len(array), count):
        yield first, array[first : first + count]


def parts(arrays: Mapping[str, Any], multiple: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """(number of the first row, rows of all arrays) a few megabytes at a time: a multiple of so many rows."""
    rows = len(next(iter(arrays.values())))
    count = rows_at_once(arrays, multiple)
    for first in range(0, rows, count):
        yield first, {name: array[first : first + count] for name, array in arrays.items()}


def rows_at_once(arrays: Mapping[str, Any], multiple: int) -> int:
    """How many rows of all of them make a block, in multiples of so many."""
    row = sum(int(np.prod(a.shape[1:], dtype=np.int64)) * a.dtype.itemsize for a in arrays.values())
    return int(max(BLOCK_BYTES // max(row * multiple, 1), 1) * multiple)


def subset(array: Any, rows: Array, real: DTypeLike = np.float32) -> Array:
    """Some rows: a copy of an array's, still unread ones of what is read in blocks."""
    if is_lazy(array):
        return cast(Array, array.take(rows))
    if is_mapped(array):
        return cast(Array, LazyRows(array, real if array.dtype.kind == "f" else array.dtype, rows))
    return cast(Array, array[rows])


def convert(array: Any, dtype: DTypeLike) -> Array:
    """The array as another type: now, or when its rows are read."""
    if is_mapped(array):
        return cast(Array, LazyRows(array, dtype))
    return cast(Array, array.astype(dtype))


def mapped(array: Any, name: str, where: str, real: np.dtype[Any], check: Callable[..., Array]) -> Array:
    """A mapped file of numbers: itself where kernels can read it in place, else `LazyRows`.

    ``check`` is the border's check of an array; it sees block after block.
    """
    kinds = {"f": real, "u": np.dtype(np.int32), "i": np.dtype(np.int32)}
    if array.dtype.kind not in kinds or array.ndim == 0:
        return check(np.asarray(array), name)  # refuses it
    for first, block in blocks(array, itemsize=8):
        try:
            check(np.asarray(block), name)
        except NonFiniteError:
            with np.errstate(over="ignore"):
                bad = np.argwhere(~np.isfinite(block.astype(real)))
            place = ", ".join(str(int(i)) for i in bad[0] + np.eye(1, bad.shape[1], dtype=int)[0] * first)
            raise NonFiniteError(
                f"[{where}] {name}[{place}] = {block[tuple(bad[0])]} is not a finite {real} ({len(bad)} bad values "
                f"among rows {first} to {first + len(block) - 1}; those behind were not read)"
            ) from None
    if is_readable(array):
        return cast(Array, array)
    if array.dtype.kind != "f" and array.dtype.itemsize >= 4 and array.dtype.newbyteorder("=") != np.int32:
        return cast(Array, LazyRows(array, np.int64))
    return cast(Array, LazyRows(array, kinds[array.dtype.kind]))


def sparse(matrix: Any, name: str, where: str, real: np.dtype[Any], check: Callable[..., Array]) -> LazyRows:
    """A SciPy matrix of numbers as rows that become dense when they are read.

    CSR is used as it is; another format becomes CSR once, in memory for its stored values.
    """
    if len(matrix.shape) != 2:
        raise ShapeError(f"[{where}] {name} is sparse with shape {matrix.shape}; allowed: (rows, features)")
    if matrix.dtype.kind not in "fiu":
        raise DTypeError(
            f"[{where}] {name} is sparse of dtype {matrix.dtype}; allowed: floats and integers; use "
            f"{name}.astype(np.float32)"
        )
    rows = matrix.tocsr()
    if rows.nnz:
        try:
            check(np.asarray(rows.data), name)
        except NonFiniteError:
            with np.errstate(over="ignore"):
                at = int(np.flatnonzero(~np.isfinite(rows.data.astype(real)))[0])
            row = int(np.searchsorted(rows.indptr, at, side="right")) - 1
            raise NonFiniteError(
                f"[{where}] {name}[{row}, {int(rows.indices[at])}] = {rows.data[at]} is not a finite {real}"
            ) from None
    return LazyRows(rows, real)
