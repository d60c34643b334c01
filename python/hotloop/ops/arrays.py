# SPDX-License-Identifier: Apache-2.0
"""The border of `hotloop.ops`: any array in, without a copy; the same kind of array out.

NumPy arrays pass as they are, everything else in the memory of the CPU through DLPack; what lies on a GPU becomes a
`device.View`, which has what is asked of arrays here. torch, JAX and CuPy get their own kind back; they are found
among the modules that are loaded, because whoever passes a tensor has imported its library. Nothing is converted: a
dtype that no kernel reads is refused, with the conversion to write.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np

from hotloop.errors import DeviceError, DTypeError, LabelError, ShapeError
from hotloop.ops import device, device_work
from hotloop.ops.device import View, library_of

Array = np.ndarray[Any, Any]

_REAL = (np.dtype(np.float32), np.dtype(np.float64))
#: Kinds of memory by their number in dlpack.h. A processor reads the first row in place: its own memory, and
#: pages of it that are pinned for a GPU.
_READABLE = {1, 3, 11}
_DEVICES = {8: "Metal", 10: "ROCm", 14: "oneAPI"}


def as_array(x: Any, where: str, name: str) -> Array:
    """A NumPy view of an array on the CPU, or a `View` of one on a GPU.

    Raises `TypeError`, `DTypeError` or `DeviceError`.
    """
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"[ops.{where}] {name} is a masked array; fill it first: {name}.filled(0)")
        return x
    if isinstance(x, np.generic) and name != "out":  # what NumPy makes of arrays without dimensions
        return np.asarray(x)
    if isinstance(x, View):
        return cast(Array, x)
    lends = hasattr(x, "__dlpack__")
    if not lends and not hasattr(x, "__cuda_array_interface__"):
        raise TypeError(
            f"[ops.{where}] {name} must be an array, got {type(x).__name__}; wrap it in np.asarray(..., np.float32)"
        )
    if getattr(x, "requires_grad", False):
        raise TypeError(
            f"[ops.{where}] {name} requires grad, which these functions do not record; pass {name}.detach()"
        )
    if not lends or _is_on_device(x, where, name):
        return cast(Array, device.read(x, f"ops.{where}", name))
    try:
        # torch lends memory that may be written to; through DLPack NumPy takes it as read-only
        return np.asarray(x.numpy() if library_of(x) == "torch" else np.from_dlpack(x))
    except (TypeError, BufferError, RuntimeError) as error:
        raise DTypeError(
            f"[ops.{where}] {name} cannot be read: {error}; allowed float32 and float64"
        ) from None


def _is_on_device(x: Any, where: str, name: str) -> bool:
    """Whether it lies on a CUDA device. Raises `DeviceError` for memory that no kernel can read."""
    try:
        kind, number = x.__dlpack_device__()
    except (ValueError, BufferError, RuntimeError) as error:  # a tensor without memory, as torch's "meta"
        raise DeviceError(f"[ops.{where}] {name} has no memory to read: {error}") from None
    if int(kind) not in (*_READABLE, device.CUDA):
        found = f"{_DEVICES.get(int(kind), 'the device type ' + str(int(kind)))} device {number}"
        raise DeviceError(
            f"[ops.{where}] {name} is not in the memory of the CPU, but of {found}; move it there first: "
            f"{name}.cpu() in torch, {name}.get() in CuPy"
        )
    return int(kind) == device.CUDA


def real_arrays(where: str, **arrays: Any) -> list[Any]:
    """Views of floating-point arrays that share one dtype and one memory; None stays None."""
    views: list[Any] = []
    dtype = None
    for name, x in arrays.items():
        if x is None:
            views.append(None)
            continue
        view = as_array(x, where, name)
        if isinstance(view, View) and view.dtype != np.float32:
            raise DTypeError(f"[ops.{where}] {name} must be float32 on a device, got {view.dtype}")
        if view.dtype not in _REAL:
            raise DTypeError(
                f"[ops.{where}] {name} must be float32 or float64, got {view.dtype}; "
                f"use {name}.astype(np.float32)"
            )
        if dtype is not None and view.dtype != dtype:
            raise DTypeError(
                f"[ops.{where}] {name} is {view.dtype} beside {dtype}; give all in one of the two"
            )
        dtype = view.dtype
        views.append(view)
    device.same_place(dict(zip(arrays, views, strict=True)), where)
    return views


def out_array(out: Any, shape: tuple[int, ...], like: Array, where: str) -> Array:
    """Where the result goes: a view of ``out``, which must fit exactly, or new memory, C-contiguous."""
    if out is None:
        return (
            cast(Array, device.result(like, shape)) if isinstance(like, View) else np.empty(shape, like.dtype)
        )
    view = as_array(out, where, "out")
    device.same_place({"out": view, "the arguments": like}, where)
    if view.shape != shape or view.dtype != like.dtype:
        raise (ShapeError if view.shape != shape else DTypeError)(
            f"[ops.{where}] out must be {like.dtype} {shape}, got {view.dtype} {view.shape}"
        )
    return writable(view, where, "out")


def writable(view: Array, where: str, name: str) -> Array:
    """The array, if a kernel may write to it. Raises `ValueError`."""
    if not view.flags.writeable:
        raise ValueError(f"[ops.{where}] {name} is read-only; pass a copy")
    if not view.flags.c_contiguous:
        raise ValueError(
            f"[ops.{where}] {name} must be C-contiguous, got strides {view.strides} for shape {view.shape}"
        )
    return view


def dense(x: Array, *, beside: Array | None = None, in_place: bool = False) -> Array:
    """``x`` in C order, and apart from ``beside``, which is written; ``in_place``: the very same place is fine."""
    if isinstance(x, View):
        return cast(Array, device_work.dense(x, cast(Any, beside), in_place))
    flat: Array = np.ascontiguousarray(x).reshape(x.shape)  # ascontiguousarray gives 0-d arrays a dimension
    if beside is None or not np.may_share_memory(flat, beside):
        return flat
    same = in_place and flat.ctypes.data == beside.ctypes.data
    return flat if same else flat.copy()


def overlap(a: Array, b: Array) -> bool:
    """Whether the two may share an element."""
    return device_work.overlap(a, cast(Any, b)) if isinstance(a, View) else np.may_share_memory(a, b)


def new(like: Array, shape: tuple[int, ...]) -> Array:
    """Memory beside ``like`` for the length of a call, of its dtype; its content is undefined."""
    return cast(Array, device.new(like, shape)) if isinstance(like, View) else np.empty(shape, like.dtype)


def assign(to: Array, x: Array) -> None:
    """``to[...] = x``"""
    if isinstance(to, View):
        device_work.assign(to, cast(Any, x))
    else:
        to[...] = x


def filled(like: Array, count: int, value: float) -> Array:
    """(count,) of one number, as `new`."""
    if isinstance(like, View):
        return cast(Array, device_work.filled(like, count, value))
    return np.full(count, value, like.dtype)


def mean(x: Array) -> float:
    """The mean of x (n,), summed in double."""
    return device_work.mean(x) if isinstance(x, View) else float(x.mean(dtype=np.float64))


def indices(x: Any, where: str, name: str, *, below: int, beside: Array) -> Array:
    """Whole numbers in [0, below) as int32, in the memory of ``beside``.

    Raises `DTypeError`, `DeviceError`, or `LabelError` with the first bad one.
    """
    view = as_array(x, where, name)
    device.same_place({name: view, "the other arguments": beside}, where)
    if isinstance(view, View):
        return cast(Array, device_work.indices(view, where, name, below))
    if view.dtype.kind not in "iu":
        raise DTypeError(
            f"[ops.{where}] {name} must be integers, got {view.dtype}; use {name}.astype(np.int64)"
        )
    bad = (view < 0) | (view >= below)
    if bad.any():
        at = np.unravel_index(int(np.argmax(bad)), view.shape)
        place = ", ".join(str(int(i)) for i in at)
        raise LabelError(f"[ops.{where}] {name}[{place}] is {view[at]}; allowed 0 to {below - 1}")
    return np.ascontiguousarray(view, np.int32)


def returned(result: Array, like: Any, out: Any = None) -> Any:
    """The result as the caller knows arrays: ``out`` itself, or a new array of the kind of ``like``."""
    if out is not None:
        return out
    if isinstance(result, View):
        return device.returned(result)
    library = library_of(like)
    if library == "torch":
        return sys.modules["torch"].from_numpy(result)
    if library == "jax":
        return sys.modules["jax"].numpy.asarray(result)
    return result
