# SPDX-License-Identifier: Apache-2.0
"""Rows that lie on a GPU already: read there by training, evaluation and prediction, and checked there.

What is refused is refused in the words of the CPU: only then are the values fetched, and looked at by the same lines.
This file names nobody's library and imports the device's half on first use only, so that whoever has arrays on the CPU
pays nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop.errors import DeviceError, DTypeError, ShapeError

if TYPE_CHECKING:
    from hotloop.ops.device import View

Array = NDArray[Any]

#: Where arrays may lie that a run takes: the CPU's memory alone, or a device's too by the name of its kind.
CPU = "cpu"
#: kDLCUDA of dlpack.h.
_CUDA = 2
#: FeedType of csrc/cuda/device_step.h.
_TYPES = {np.dtype(t): i for i, t in enumerate((np.uint8, np.int32, np.int64, np.float32, np.float64))}


class Checker(Protocol):
    """The border's check of an array on the CPU, which raises what is wrong with its values."""

    def __call__(self, array: Array) -> Array: ...


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
        return self.view.address, _TYPES[self.dtype], len(self), self._width, self.view.owner

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
        return DeviceRows(replace(self.view, shape=full, strides=_strides(full, self.dtype)))

    def astype(self, dtype: DTypeLike, copy: bool = False) -> DeviceRows:
        """The same numbers as float32 or int32, which they are known to fit; itself where it is that."""
        to = np.dtype(dtype)
        if to == self.dtype:
            return self
        return DeviceRows(_converted(self.view, to))

    def first_outside(self, low: float, high: float) -> int:
        """The place of the first element below or above that, in C order; -1: there is none."""
        if not self.size:
            return -1
        view = self.view
        return int(view.queue.first_outside(view.address, _TYPES[self.dtype], self.size, low, high))


def _strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    from hotloop.ops import device

    return device.dense_strides(shape, dtype)


def kind() -> str:
    """The kind of device that other libraries' arrays lie on."""
    from hotloop.ops import device

    return device.KIND


def is_on_device(value: Any) -> bool:
    """Whether it is what `read` gives."""
    return isinstance(value, DeviceRows)


def lies_on_device(value: Any) -> bool:
    """Whether an array of somebody's lies on a CUDA device, by what it says of itself."""
    if isinstance(value, (np.ndarray, DeviceRows)):
        return isinstance(value, DeviceRows)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return bool(value.device.type == "cuda")
    if not hasattr(value, "__dlpack_device__"):
        return hasattr(value, "__cuda_array_interface__")
    try:
        return int(value.__dlpack_device__()[0]) == _CUDA
    except (ValueError, BufferError, RuntimeError, TypeError):
        return False  # who has no memory says so when it is read


def on_host(array: Any) -> Array:
    """The array, in the memory of the CPU if it lies on a device."""
    return np.asarray(array) if isinstance(array, DeviceRows) else cast(Array, array)


def part(array: Any, first: int, last: int) -> Array:
    """Rows [first, last), where they lie."""
    return cast(Array, array.part(first, last) if isinstance(array, DeviceRows) else array[first:last])


def first_of(arrays: Mapping[str, Any]) -> DeviceRows | None:
    """The first of them that lies on a device; None: all lie in the memory of the CPU."""
    return next((array for array in arrays.values() if isinstance(array, DeviceRows)), None)


def read(value: Any, name: str, where: str, *, on: str, check: Checker | None) -> DeviceRows:
    """An array on a device as training reads it: in place if it is C-contiguous float32, uint8, int32 or int64.

    float64 becomes float32 there, and what lies in other strides is made dense. Waits for what its owner has
    launched. ``on``: the kind of device that the run is on; ``check``: the check of values on the CPU, None for
    none. Raises `DeviceError` for a run on the CPU and for another device, `DTypeError`, `ShapeError`, and what
    ``check`` raises.
    """
    if isinstance(value, DeviceRows):
        return value
    from hotloop.ops import device

    if on != device.KIND:
        raise DeviceError(
            f"[{where}] {name} lies on a GPU, and this model runs on the CPU; pass {_home(value, name)}, or train "
            "with device='cuda'"
        )
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"[{where}] {name} is a tensor that requires grad, which stops here; pass {name}.detach()"
        )
    view = device.read(value, where, name)
    if view.queue.number != 0:
        raise DeviceError(
            f"[{where}] {name} lies on CUDA device {view.queue.number}, and training runs on device 0; move it there, "
            "or choose the device by CUDA_VISIBLE_DEVICES"
        )
    if not view.ndim:
        raise ShapeError(f"[{where}] {name} is a single number, got shape (); allowed: rows first, (n, ...)")
    if view.dtype not in _TYPES:
        raise DTypeError(
            f"[{where}] {name} has dtype {view.dtype} on a GPU; allowed there: float32, float64, uint8, int32 and "
            "int64; convert it first"
        )
    given = view = _dense(view, name, where)
    if view.dtype == np.float64:
        view = _converted(view, np.dtype(np.float32))
    if check is not None and view.dtype.kind == "f" and view.size:
        if not view.queue.is_finite(view.address, view.size):
            check(DeviceRows(given)[:])
    else:
        view.queue.wait()  # for the owner's work
    return DeviceRows(view)


def _home(value: Any, name: str) -> str:
    """How an array is copied to the memory of the CPU."""
    from hotloop.ops import device

    if isinstance(value, device.DeviceArray):
        return f"{name}.numpy()"
    return {"torch": f"{name}.cpu()", "cupy": f"{name}.get()", "jax": f"np.asarray({name})"}.get(
        device.library_of(value) or "", "a copy of it in the memory of the CPU"
    )


def _dense(view: View, name: str, where: str) -> View:
    """The view in C order, if need be as a copy."""
    from hotloop.ops import device_work

    if view.c_contiguous:
        return view
    size = view.dtype.itemsize
    if size % 4 or any(s < 0 for s in view.strides):
        raise ShapeError(
            f"[{where}] {name} of {view.dtype} has strides {view.strides} for shape {view.shape}; on a GPU it must be "
            "contiguous; make it so first"
        )
    words = replace(view, dtype=np.dtype(np.float32))  # a copy of bits
    if size > 4:
        words = replace(words, shape=(*view.shape, size // 4), strides=(*view.strides, 4))
    made = device_work.dense(words, None, False)
    return replace(
        made,
        dtype=view.dtype,
        shape=view.shape,
        strides=_strides(view.shape, view.dtype),
        library=view.library,
    )


def _converted(view: View, to: np.dtype[Any]) -> View:
    """The same numbers as float32 or int32."""
    from hotloop.ops import device

    made = device.new(view, view.shape, to)
    if made.size:
        view.queue.convert(view.address, _TYPES[view.dtype], view.size, made.address, to_index=to.kind == "i")
    view.queue.wait()
    return replace(made, library=view.library)


class Result:
    """Where outputs (rows, ...) of float32 go that are given back on a device, as arrays of the kind of ``like``."""

    def __init__(self, like: DeviceRows, shape: tuple[int, ...]) -> None:
        from hotloop.ops import device

        self._view = device.result(replace(like.view, dtype=np.dtype(np.float32)), shape)
        self._view.queue.wait()  # for what its library still does with that memory
        self._row_bytes = math.prod(shape[1:]) * 4

    def at(self, row: int) -> int:
        """The address of a row."""
        return self._view.address + row * self._row_bytes

    def through(self, first: int, count: int, rows: int, fill: Callable[[int], None]) -> None:
        """Rows [first, first + count) by way of a place with room for ``rows``, which ``fill`` is told of."""
        from hotloop.ops import device

        queue = self._view.queue
        held = device.new(self._view, (rows * self._row_bytes // 4,), np.float32)
        queue.wait()
        fill(held.address)
        queue.copy(self.at(first), held.address, count * self._row_bytes)

    def array(self) -> Any:
        """The array as its reader knows arrays; work on it is done."""
        from hotloop.ops import device, device_work

        self._view.queue.wait()
        device_work.settle([self._view])
        return device.returned(self._view)
