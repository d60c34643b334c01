# SPDX-License-Identifier: Apache-2.0
"""Rows that lie on a GPU: what training, evaluation and prediction read in place, and what becomes of some of them.

They are made by device_arrays.py. The device's half is imported on first use only, so that whoever has arrays on the
CPU pays nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from hotloop.ops.device import View

Array = NDArray[Any]

#: Where arrays may lie that a run takes: the CPU's memory alone, or a device's too by the name of its kind.
CPU = "cpu"
#: FeedType of csrc/cuda/device_step.h.
TYPES = {np.dtype(t): i for i, t in enumerate((np.uint8, np.int32, np.int64, np.float32, np.float64))}


class DeviceRows:
    """Rows (n, ...) on a device: C-contiguous float32, uint8, int32 or int64, and nobody's work on them under way.

    Indexing by rows gives them in the memory of the CPU, as a copy; ``part`` and ``take`` leave them there.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.shape, self.dtype = view.shape, view.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Of all rows."""
        return self.size * self.dtype.itemsize

    @property
    def feed(self) -> tuple[int, int, int, int, Any]:
        """What a `_core.DeviceSource` reads in place; the owner is kept alive by it."""
        return self.view.address, TYPES[self.dtype], len(self), self._width, self.view.owner

    @property
    def _width(self) -> int:
        return math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """All rows, in the memory of the CPU."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: Any) -> Array:
        """The given rows (a slice, or numbers (k,)), in the memory of the CPU."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            found = self.part(*rows.indices(len(self))[:2])
        else:
            found = self.take(np.arange(len(self))[rows])
        out: Array = np.empty(found.shape, found.dtype)
        if out.size:
            found.view.queue.download(out, found.view.address)
        return out

    def part(self, first: int, last: int) -> DeviceRows:
        """Rows [first, last), in place."""
        count = max(last - first, 0)
        address = self.view.address + first * self._width * self.dtype.itemsize
        return DeviceRows(replace(self.view, address=address, shape=(count, *self.shape[1:])))

    def take(self, rows: Array) -> DeviceRows:
        """The rows of these numbers (k,): a copy on the device."""
        from hotloop.ops import device, device_work

        shape, words = (len(rows), *self.shape[1:]), self._width * self.dtype.itemsize // 4
        made = device.new(self.view, shape, self.dtype)
        if made.size and self._width * self.dtype.itemsize % 4 == 0:
            # Rows of whole words are gathered as an embedding is: a copy of bits, whatever they mean.
            numbers = device_work.upload(self.view, np.ascontiguousarray(rows, np.int32))
            fields = (made, self.view, numbers, len(rows), len(self), words)
            device_work.launch("embedding_fwd", fields)
            self.view.queue.wait()
        elif made.size:
            made = device_work.upload(self.view, np.ascontiguousarray(self[:][rows]))
            self.view.queue.wait()
        return DeviceRows(made)

    def padded(self, rows: int) -> DeviceRows:
        """So many rows, of which those behind ours are zero: a copy on the device."""
        from hotloop.ops import device

        made, queue = device.new(self.view, (rows, *self.shape[1:]), self.dtype), self.view.queue
        queue.clear(made.address, made.size * self.dtype.itemsize)
        queue.copy(made.address, self.view.address, self.nbytes)
        queue.wait()
        return DeviceRows(made)

    def reshape(self, *shape: int) -> DeviceRows:
        """The same elements in another shape, in place."""
        known = -math.prod(shape)
        full = tuple(self.size // known if n < 0 else n for n in shape)
        return DeviceRows(replace(self.view, shape=full, strides=dense_strides(full, self.dtype)))

    def astype(self, dtype: DTypeLike, copy: bool = False) -> DeviceRows:
        """The same numbers as float32 or int32, which they are known to fit; itself where it is that."""
        to = np.dtype(dtype)
        if to == self.dtype:
            return self
        return DeviceRows(converted(self.view, to))

    def first_outside(self, low: float, high: float) -> int:
        """The place of the first element below or above that, in C order; -1: there is none."""
        if not self.size:
            return -1
        view = self.view
        return int(view.queue.first_outside(view.address, TYPES[self.dtype], self.size, low, high))


def dense_strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    from hotloop.ops import device

    return device.dense_strides(shape, dtype)


def is_on_device(value: Any) -> bool:
    """Whether it is what `read` gives."""
    return isinstance(value, DeviceRows)


def on_host(array: Any) -> Array:
    """The array, in the memory of the CPU if it lies on a device."""
    return np.asarray(array) if isinstance(array, DeviceRows) else cast(Array, array)


def part(array: Any, first: int, last: int) -> Array:
    """Rows [first, last), where they lie."""
    return cast(Array, array.part(first, last) if isinstance(array, DeviceRows) else array[first:last])


def first_of(arrays: Mapping[str, Any]) -> DeviceRows | None:
    """The first of them that lies on a device; None: all lie in the memory of the CPU."""
    return next((array for array in arrays.values() if isinstance(array, DeviceRows)), None)


def converted(view: View, to: np.dtype[Any]) -> View:
    """The same numbers as float32 or int32."""
    from hotloop.ops import device

    made = device.new(view, view.shape, to)
    if made.size:
        view.queue.convert(view.address, TYPES[view.dtype], view.size, made.address, to_index=to.kind == "i")
    view.queue.wait()
    return replace(made, library=view.library)
