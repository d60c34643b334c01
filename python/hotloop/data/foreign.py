# SPDX-License-Identifier: Apache-2.0
"""Arrays of other libraries as NumPy sees them: torch tensors, DLPack producers, series of frames.

Nothing is copied that lies in the memory of the CPU in a type that NumPy has, and nothing is imported:
whoever passes a tensor has loaded its library.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hotloop.data.columns import Column, as_columns
from hotloop.errors import DeviceError, DTypeError, NonFiniteError

_CPU = (1, 3)  # kDLCPU and kDLCUDAHost of dlpack.h


def is_sparse(value: Any) -> bool:
    """Whether it is a SciPy sparse matrix or array, of any format.

    >>> is_sparse(np.eye(2))
    False
    """
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def as_numpy(value: Any, name: str, where: str) -> Any:
    """A NumPy view of an array of another library; what is none, lists for instance, as it is.

    Raises `TypeError` for a tensor that requires grad, `DeviceError` for one elsewhere than in the memory of
    the CPU, `DTypeError` for sparse ones and for element types that NumPy does not have.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor(torch, value, name, where)
    if is_sparse(value):
        raise DTypeError(
            f"[{where}] {name} is a sparse matrix; allowed there: dense arrays; use {name}.toarray() (only X of "
            "a two-dimensional input may be sparse)"
        )
    if hasattr(value, "__dlpack__"):
        return _dlpack(value, name, where)
    if isinstance(value, Column):
        return value.values
    if type(value).__name__ in ("Series", "ChunkedArray"):
        return _series(value, name, where)
    return value


def _tensor(torch: Any, value: Any, name: str, where: str) -> Any:
    if value.requires_grad:
        raise TypeError(
            f"[{where}] {name} is a tensor that requires grad, which stops here; pass {name}.detach()"
        )
    if value.device.type != "cpu":
        raise DeviceError(f"[{where}] {name} is on {value.device}; allowed: the CPU; pass {name}.cpu()")
    if value.layout is not torch.strided:
        raise DTypeError(f"[{where}] {name} is a sparse tensor; allowed: dense ones; pass {name}.to_dense()")
    try:
        return value.resolve_conj().resolve_neg().numpy()
    except TypeError:
        raise DTypeError(
            f"[{where}] {name} has dtype {value.dtype}, which NumPy does not have; pass {name}.float()"
        ) from None


def _dlpack(value: Any, name: str, where: str) -> Any:
    if value.__dlpack_device__()[0] not in _CPU:
        raise DeviceError(
            f"[{where}] {name} ({type(value).__name__}) is not in the memory of the CPU; move it there first"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        if hasattr(value, "__array__"):  # such as Arrow's arrays with gaps, which NumPy explains better
            return value
        raise DTypeError(f"[{where}] {name} cannot be read: {error}; convert it to float32 first") from None


def _series(value: Any, name: str, where: str) -> Any:
    """A series as an array; numbers that pandas keeps as objects (nullable integers, decimals) too."""
    array = np.asarray(value)
    if array.dtype != object:
        return array
    try:
        column = as_columns({name: value}, where=where)[name]
    except (ImportError, DTypeError):  # what is said of an array of objects will do
        return array
    if column.kind != "number":
        return array
    if column.missing.any():
        row, count = int(np.argmax(column.missing)), int(column.missing.sum())
        raise NonFiniteError(
            f"[{where}] {name}[{row}] is missing ({count} of {len(array)} values); allowed: numbers; drop those "
            "rows, or fill them in"
        )
    whole = column.source.lower().lstrip("u").startswith("int")
    return column.values.astype(np.int64) if whole else column.values
