# SPDX-License-Identifier: Apache-2.0
"""Arrays on a GPU at the border of `hotloop.ops`: read where they lie, results of the caller's own kind.

An array comes by `__cuda_array_interface__` or by DLPack; torch, CuPy and JAX are found among the modules that are
loaded. Kernels run in a stream of ours: after what the array's owner has launched, and before what it launches next,
so that nobody waits on the host. A `View` answers like a NumPy array to whoever asks for shape, strides and the like,
so that the functions of this package check and lay out both by the same lines.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Union

import numpy as np

from hotloop import _core
from hotloop.errors import DeviceError, DTypeError
from hotloop.runtime.device import library, open_device

#: The library that runs kernels on arrays of CUDA devices; tests put the emulator's name here.
KIND = "cuda"
CUDA = 2  # of dlpack.h
_CODES = {0: "i", 1: "u", 2: "f", 4: "V", 5: "c", 6: "b"}  # dlpack.h; V: bfloat16, which NumPy has not

_queues: dict[tuple[int, str, int], Any] = {}
_here = threading.local()


@dataclass(frozen=True)
class View:
    """Elements on a device: strides in bytes, as NumPy's. ``owner`` keeps them alive."""

    queue: Any
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    writeable: bool = True
    stream: int | None = None  # the owner's, whose next work comes after ours
    waits: bool = False  # nobody can say which stream that is: the host waits
    library: str | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def c_contiguous(self) -> bool:
        return not self.size or all(
            n == 1 or have == want
            for n, have, want in zip(
                self.shape, self.strides, dense_strides(self.shape, self.dtype), strict=True
            )
        )

    @property
    def flags(self) -> View:
        """What is asked of ``flags`` are properties of the view itself."""
        return self

    def transpose(self, axes: Any) -> View:
        """The dimensions in that order, in place."""
        return replace(
            self, shape=tuple(self.shape[a] for a in axes), strides=tuple(self.strides[a] for a in axes)
        )

    def swapaxes(self, a: int, b: int) -> View:
        axes = list(range(self.ndim))
        axes[a], axes[b] = axes[b], axes[a]
        return self.transpose(axes)

    def __getitem__(self, key: Any) -> View:
        """``[None]`` and ``[:, None]``: a dimension more."""
        at = 0 if key is None else 1
        if key is not None and key != (slice(None), None):
            raise IndexError(f"[ops] a view of a device takes [None] and [:, None], got [{key}]")
        shape, strides = (
            (*old[:at], new, *old[at:]) for old, new in ((self.shape, 1), (self.strides, self.dtype.itemsize))
        )
        return replace(self, shape=shape, strides=strides)

    def spread(self, shape: tuple[int, ...]) -> View:
        """Broadcast to a shape, in place."""
        more = len(shape) - self.ndim
        strides = (0,) * more + tuple(
            0 if n == 1 and want != 1 else s
            for n, s, want in zip(self.shape, self.strides, shape[more:], strict=True)
        )
        return replace(self, shape=shape, strides=strides)

    def extent(self) -> tuple[int, int]:
        """Its first byte, and the one past its last."""
        if not self.size:
            return self.address, self.address
        ends = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)
        return self.address + low, self.address + high + self.dtype.itemsize


class DeviceArray:
    """A float32 array on a GPU: what `hotloop.ops` gives back for arrays of no library that it knows.

    torch, CuPy, JAX and others read it in place, through ``__dlpack__`` or ``__cuda_array_interface__``.

    Attributes:
        shape, ndim, size, dtype: as of a NumPy array; C-contiguous.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.shape, self.ndim, self.size, self.dtype = view.shape, view.ndim, view.size, view.dtype

    @classmethod
    def copy_of(cls, x: Any) -> DeviceArray:
        """A copy of a float32 array in host memory. Raises `DTypeError`, or `DeviceError` without a GPU."""
        array = np.asarray(x)
        if array.dtype != np.float32:
            raise DTypeError(
                f"[DeviceArray.copy_of] x must be float32, got {array.dtype}; use x.astype(np.float32)"
            )
        queue = _queue(0, "DeviceArray.copy_of")
        view = _new(queue, array.shape, array.dtype)
        if array.size:
            queue.upload(view.address, np.ascontiguousarray(array))
        return cls(view)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy in host memory, once the work on it is done. Raises `DeviceError` if a kernel failed."""
        result = np.empty(self.shape, self.dtype)
        if self.size:
            self._view.queue.download(result, self._view.address)
        return result

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._view.owner.lend()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._view.address, False),
            "strides": None,
            "stream": self._view.queue.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._view.queue.number

    def __dlpack__(
        self, *, stream: int | None = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:  # fmt: skip
        """A capsule. ``stream``: whose work comes after ours; None is the default one, -1 none.

        Raises `BufferError` for a copy or for another device, which are not made here.
        """
        here = self.__dlpack_device__()
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != here):
            raise BufferError(
                f"[DeviceArray] memory of device {here} is lent as it is; use numpy() for a copy"
            )
        if stream == 0 or (stream is not None and stream < -1):
            raise ValueError(f"[DeviceArray] stream must be None, -1, 1, 2 or an address, got {stream}")
        if stream != -1:
            self._view.queue.before(1 if stream is None else stream)
        versioned = max_version is not None and max_version[0] >= 1
        return _core.to_dlpack(self._view.owner, here[1], list(self.shape), versioned)

    def __repr__(self) -> str:
        return f"DeviceArray({self.numpy()!r}, device={self._view.queue.number})"


def library_of(x: Any) -> Union[str, None]:
    """The library of an array among those that get their own kind back."""
    for name, kind in (("torch", "Tensor"), ("jax", "Array"), ("cupy", "ndarray")):
        module = sys.modules.get(name)
        if module is not None and isinstance(x, getattr(module, kind)):
            return name
    return None


def read(x: Any, where: str, name: str) -> View:
    """A view of an array on a device, after whose pending work ours will run.

    Raises `DeviceError` if the device cannot be used, `DTypeError` for elements that NumPy has no name for.
    """
    if isinstance(x, DeviceArray):
        return x._view
    kind = library_of(x)
    if kind in ("torch", "jax") or not hasattr(x, "__cuda_array_interface__"):
        return _from_dlpack(x, kind, where, name)
    return _from_interface(x, kind, where, name)


def _from_interface(x: Any, kind: str | None, where: str, name: str) -> View:
    """``__cuda_array_interface__``, version 3: its ``stream`` is to be waited for, and None is nothing to wait for.

    Who names no stream finds our work done.
    """
    found = x.__cuda_array_interface__
    if found.get("mask") is not None:
        raise TypeError(f"[ops.{where}] {name} is a masked array; fill it first")
    number = int(x.__dlpack_device__()[1]) if hasattr(x, "__dlpack_device__") else 0
    queue = _queue(number, f"ops.{where}", name)
    dtype, shape = np.dtype(found["typestr"]), tuple(int(n) for n in found["shape"])
    strides = found.get("strides")
    stream = found.get("stream")
    if stream == 0:
        raise ValueError(f"[ops.{where}] {name} names stream 0, which the array interface does not allow")
    view = View(
        queue, int(found["data"][0] or 0), shape,
        dense_strides(shape, dtype) if strides is None else tuple(int(s) for s in strides),
        dtype, x, not found["data"][1], stream, stream is None, kind,
    )  # fmt: skip
    if stream is not None:
        _after(queue, int(stream))
    return view


@contextmanager
def waiting_once() -> Iterator[None]:
    """In it a stream that many arrays name is waited for once: their owners launch nothing in between."""
    _here.waited = set()
    try:
        yield
    finally:
        _here.waited = None


def _after(queue: Any, stream: int) -> None:
    """Our work comes after what is in that stream of an owner."""
    waited: set[tuple[int, int]] | None = getattr(_here, "waited", None)
    if waited is not None and (id(queue), stream) in waited:
        return
    queue.after(stream)
    if waited is not None:
        waited.add((id(queue), stream))


def _from_dlpack(x: Any, kind: str | None, where: str, name: str) -> View:
    """DLPack: the producer makes our stream wait for its own."""
    queue = _queue(int(x.__dlpack_device__()[1]), f"ops.{where}", name)
    try:
        try:
            capsule = x.__dlpack__(stream=queue.stream, max_version=(1, 0))
        except TypeError:  # of before DLPack 1.0
            capsule = x.__dlpack__(stream=queue.stream)
    except (BufferError, RuntimeError) as error:
        raise DTypeError(f"[ops.{where}] {name} cannot be read: {error}; allowed float32") from None
    address, _, _, code, bits, lanes, shape, strides, read_only, loan = _core.from_dlpack(capsule)
    element = _CODES.get(code, "V")
    if element == "V" or lanes != 1 or bits % 8:
        raise DTypeError(f"[ops.{where}] {name} has elements that no kernel reads; allowed float32")
    dtype = np.dtype(f"{'u' if element == 'b' else element}{bits // 8}")
    stream = _current_stream(kind, queue.number)
    return View(
        queue, address, shape,
        dense_strides(shape, dtype) if strides is None else tuple(s * dtype.itemsize for s in strides),
        dtype, (x, loan), not read_only and kind != "jax", stream, stream is None, kind,
    )  # fmt: skip


def _current_stream(kind: str | None, number: int) -> int | None:
    """The stream that a library launches in next; None if it does not say."""
    if kind == "torch":
        return int(sys.modules["torch"].cuda.current_stream(number).cuda_stream)
    return None


def _queue(number: int, where: str, name: str = "") -> Any:
    """Kernels and a stream of ours on a device, opened on first use. ``name``: of the argument that lies there."""
    key = (os.getpid(), KIND, number)
    if key not in _queues:
        try:
            device = open_device(KIND, where)
            if number != 0:
                device = _core.Device(library(KIND), number)
        except DeviceError as error:
            if not name:
                raise
            raise DeviceError(
                f"[{where}] {name} is not in the memory of the CPU, but of CUDA device {number}, which cannot be "
                f"used: {error}; move it there first: {name}.cpu() in torch, {name}.get() in CuPy"
            ) from None
        _queues[key] = _core.DeviceEager(device)
    return _queues[key]


def dense_strides(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    strides, step = [], dtype.itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _new(queue: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
    """Memory of ours; its content is undefined."""
    memory = queue.allocate(math.prod(shape) * dtype.itemsize)
    return View(queue, memory.address, shape, dense_strides(shape, dtype), dtype, memory)


def new(like: View, shape: tuple[int, ...], dtype: Any = None) -> View:
    """Memory beside ``like``, C-contiguous, for the length of a call; its content is undefined."""
    return _new(like.queue, shape, np.dtype(dtype or like.dtype))


def result(like: View, shape: tuple[int, ...]) -> View:
    """Memory for a result of the kind of ``like``, from its own library where that can be asked."""
    if like.library == "torch":
        torch = sys.modules["torch"]
        tensor = torch.empty(shape, dtype=torch.float32, device=f"cuda:{like.queue.number}")
        return replace(_from_dlpack(tensor, "torch", "empty", "out"), owner=tensor)
    if like.library == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(like.queue.number):
            array = cupy.empty(shape, dtype=np.float32)
        return _from_interface(array, "cupy", "empty", "out")
    return replace(new(like, shape), library=like.library)


def returned(view: View) -> Any:
    """The result as its reader knows arrays."""
    if view.library in ("torch", "cupy"):
        return view.owner
    array = DeviceArray(view)
    return sys.modules["jax"].dlpack.from_dlpack(array) if view.library == "jax" else array


def same_place(views: dict[str, Any], where: str) -> None:
    """Raises `DeviceError` unless all arrays are in the memory of one device, or all in that of the CPU."""
    places = {
        name: f"CUDA device {view.queue.number}" if isinstance(view, View) else "the CPU"
        for name, view in views.items()
        if view is not None
    }
    if len(set(places.values())) > 1:
        found = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise DeviceError(
            f"[ops.{where}] all arrays must be in one memory, got {found}; move them to one first"
        )
