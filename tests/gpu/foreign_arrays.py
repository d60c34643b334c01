# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for arrays of other libraries on a GPU, over the emulator's memory: one for each protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotloop import _core
from hotloop.ops import device as on_device


def put(array: Any) -> tuple[Any, Any]:
    """(queue, memory) that holds a copy of the array."""
    queue = on_device._queue(0, "test")
    array = np.ascontiguousarray(array)
    memory = queue.allocate(array.nbytes)
    if array.size:
        queue.upload(memory.address, array)
        queue.wait()
    return queue, memory


class Interface:
    """An array that is known by ``__cuda_array_interface__`` alone."""

    def __init__(self, array: Any, *, stream: Any = 1, read_only: bool = False, strides: Any = None) -> None:
        array = np.asarray(array)
        self.queue, self.memory = put(array)
        self.shape, self.dtype, self.strides = array.shape, array.dtype, strides
        self.stream, self.read_only = stream, read_only

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, self.read_only),
            "strides": self.strides,
            "stream": self.stream,
            "version": 3,
        }

    def numpy(self) -> np.ndarray:
        result = np.empty(self.shape, self.dtype)
        self.queue.wait()
        if result.size:
            self.queue.download(result, self.memory.address)
        return result


class Lender:
    """An array that is known by DLPack alone; ``asked``: the streams that it was told of."""

    def __init__(self, array: Any, *, legacy: bool = False) -> None:
        array = np.asarray(array, np.float32)
        self.queue, self.memory = put(array)
        self.shape, self.legacy = array.shape, legacy
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: Any = None, **more: Any) -> Any:
        if self.legacy and more:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        self.asked.append(stream)
        return _core.to_dlpack(self.memory, 0, list(self.shape), not self.legacy)

    numpy = Interface.numpy
    dtype = np.dtype(np.float32)
