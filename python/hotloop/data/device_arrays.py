# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries on a GPU, on their way to training, and answers of their own kind on the way back.

Checks run on the device. What is refused is refused in the words of the CPU: only then are the values fetched, and
looked at by the same lines. Nobody's library is imported here, and the device's half on first use only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hotloop.data.device_rows import TYPES, Array, DeviceRows, converted, dense_strides
from hotloop.errors import DeviceError, DTypeError, ShapeError

if TYPE_CHECKING:
    from hotloop.ops.device import View

#: kDLCUDA of dlpack.h.
_CUDA = 2


class Checker(Protocol):
    """The border's check of an array on the CPU, which raises what is wrong with its values."""

    def __call__(self, array: Array) -> Array: ...


def kind() -> str:
    """The kind of device that other libraries' arrays lie on."""
    from hotloop.ops import device

    return device.KIND


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
    if view.dtype not in TYPES:
        raise DTypeError(
            f"[{where}] {name} has dtype {view.dtype} on a GPU; allowed there: float32, float64, uint8, int32 and "
            "int64; convert it first"
        )
    given = view = _dense(view, name, where)
    if view.dtype == np.float64:
        view = converted(view, np.dtype(np.float32))
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
        strides=dense_strides(view.shape, view.dtype),
        library=view.library,
    )


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
