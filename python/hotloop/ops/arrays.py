# SPDX-License-Identifier: Apache-2.0
"""The border of `hotloop.ops`: any array on the CPU in, without a copy; the same kind of array out.

NumPy arrays pass as they are, everything else through DLPack. torch and JAX get their own kind back; they are
found among the modules that are loaded, because whoever passes a tensor has imported its library. Nothing is
converted: a dtype that no kernel reads is refused, with the conversion to write.
"""

from __future__ import annotations

import sys
from typing import Any, Union

import numpy as np

from hotloop.errors import DeviceError, DTypeError, LabelError, ShapeError

Array = np.ndarray[Any, Any]

_REAL = (np.dtype(np.float32), np.dtype(np.float64))
#: Kinds of memory by their number in dlpack.h. A processor reads the first row in place: its own memory, and
#: pages of it that are pinned for a GPU.
_READABLE = {1, 3, 11}
_DEVICES = {2: "CUDA", 8: "Metal", 10: "ROCm", 14: "oneAPI"}


def as_array(x: Any, where: str, name: str) -> Array:
    """A NumPy view of an array on the CPU. Raises `TypeError`, `DTypeError` or `DeviceError`."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"[ops.{where}] {name} is a masked array; fill it first: {name}.filled(0)")
        return x
    if isinstance(x, np.generic) and name != "out":  # what NumPy makes of arrays without dimensions
        return np.asarray(x)
    if not hasattr(x, "__dlpack__"):
        raise TypeError(
            f"[ops.{where}] {name} must be an array, got {type(x).__name__}; wrap it in np.asarray(..., np.float32)"
        )
    if getattr(x, "requires_grad", False):
        raise TypeError(
            f"[ops.{where}] {name} requires grad, which these functions do not record; pass {name}.detach()"
        )
    _check_device(x, where, name)
    try:
        # torch lends memory that may be written to; through DLPack NumPy takes it as read-only
        return np.asarray(x.numpy() if _library(x) == "torch" else np.from_dlpack(x))
    except (TypeError, BufferError, RuntimeError) as error:
        raise DTypeError(
            f"[ops.{where}] {name} cannot be read: {error}; allowed float32 and float64"
        ) from None


def _check_device(x: Any, where: str, name: str) -> None:
    """Raises `DeviceError` for memory that no kernel of the CPU can read."""
    try:
        kind, number = x.__dlpack_device__()
    except (ValueError, BufferError, RuntimeError) as error:  # a tensor without memory, as torch's "meta"
        raise DeviceError(f"[ops.{where}] {name} has no memory to read: {error}") from None
    if int(kind) not in _READABLE:
        found = f"{_DEVICES.get(int(kind), 'the device type ' + str(int(kind)))} device {number}"
        raise DeviceError(
            f"[ops.{where}] {name} is not in the memory of the CPU, but of {found}; move it there first: "
            f"{name}.cpu() in torch, {name}.get() in CuPy"
        )


def real_arrays(where: str, **arrays: Any) -> list[Any]:
    """NumPy views of floating-point arrays that share one dtype; None stays None."""
    views: list[Any] = []
    dtype = None
    for name, x in arrays.items():
        if x is None:
            views.append(None)
            continue
        view = as_array(x, where, name)
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
    return views


def out_array(out: Any, shape: tuple[int, ...], like: Array, where: str) -> Array:
    """Where the result goes: a view of ``out``, which must fit exactly, or new memory, C-contiguous."""
    if out is None:
        return np.empty(shape, like.dtype)
    view = as_array(out, where, "out")
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
    flat: Array = np.ascontiguousarray(x).reshape(x.shape)  # ascontiguousarray gives 0-d arrays a dimension
    if beside is None or not np.may_share_memory(flat, beside):
        return flat
    same = in_place and flat.ctypes.data == beside.ctypes.data
    return flat if same else flat.copy()


def indices(x: Any, where: str, name: str, *, below: int) -> Array:
    """Whole numbers in [0, below) as int32. Raises `DTypeError`, or `LabelError` with the first bad one."""
    view = as_array(x, where, name)
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
    library = _library(like)
    if library == "torch":
        return sys.modules["torch"].from_numpy(result)
    if library == "jax":
        return sys.modules["jax"].numpy.asarray(result)
    return result


def _library(x: Any) -> Union[str, None]:
    """The library of an array among those that get their own kind back."""
    if isinstance(x, np.ndarray):
        return None
    for name, kind in (("torch", "Tensor"), ("jax", "Array")):
        module = sys.modules.get(name)
        if module is not None and isinstance(x, getattr(module, kind)):
            return name
    return None
