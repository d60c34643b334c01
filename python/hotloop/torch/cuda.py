# SPDX-License-Identifier: Apache-2.0
"""Tensors on a CUDA device: torch's stream and memory as our device library takes them.

Kernels run in a stream of ours, after what torch's current stream holds and before what it is given next, so that
nobody waits on the host. `place` is the whole border: all that is asked of torch about a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotloop.errors import DTypeError
from hotloop.ops import device, device_work
from hotloop.ops.device import View

_DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.int32: np.dtype(np.int32),
}


def is_there(x: Tensor) -> bool:
    """Whether it lies on a CUDA device."""
    return bool(x.is_cuda)


def place(x: Tensor) -> tuple[int, int]:
    """(number of its device, address of torch's current stream there)"""
    return x.device.index, int(torch.cuda.current_stream(x.device).cuda_stream)


def empty(shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory of torch's there."""
    return torch.empty(shape, dtype=dtype, device=device)


def queue(x: Tensor, where: str, name: str) -> tuple[Any, int]:
    """Our queue on a tensor's device, and torch's stream there. Raises `DeviceError` if the device cannot be used."""
    number, stream = place(x)
    return device._queue(number, where, name), stream


def view(x: Tensor, where: str, name: str) -> View:
    """The tensor as kernels take it, whatever launched last on it."""
    x = x.resolve_neg()
    ours, stream = queue(x, where, name)
    ours.after(stream)
    dtype = _DTYPES[x.dtype]
    strides = tuple(s * dtype.itemsize for s in x.stride())
    return View(ours, x.data_ptr(), tuple(x.shape), strides, dtype, x, stream=stream, library="torch")


def check(where: str, **tensors: Tensor | None) -> None:
    """Raises `DTypeError` or `DeviceError` unless kernels for devices can take these: float32, on a device that this
    build can use."""
    for name, x in tensors.items():
        if x is not None and x.dtype is torch.float64:
            raise DTypeError(
                f"[torch.{where}] {name} is torch.float64 on {x.device}; allowed there torch.float32; use "
                f"{name}.float()"
            )
        if x is not None:
            queue(x, f"torch.{where}", name)


def run(kernel: str, where: str, fields: tuple[Any, ...], **context: Any) -> None:
    """Launch a kernel of the list; tensors among its fields are dense."""
    views = tuple(view(f, where, "x") if isinstance(f, Tensor) else f for f in fields)
    device_work.launch(kernel, views, **context)


def multiply(
    out: Tensor, a: Tensor, b: Tensor, *, bias: Tensor | None = None, activation: int = -1,
    saved: Tensor | None = None, row_sum: Tensor | None = None,
) -> None:  # fmt: skip
    """``out (m, n) = activation(a (m, k) @ b (k, n) + bias)``, out C-contiguous; as `ops.linear.into`."""
    (m, k), n = a.shape, b.shape[1]
    if not out.numel():
        if row_sum is not None:
            row_sum.copy_(a.sum(-1))
        return
    fields = (
        out, saved, row_sum, a, b, None if bias is None else bias.contiguous(), None, None, m, n, k, *a.stride(),
        *b.stride(), n, 0, 0, activation, -1, 1.0, 0.0, 0.0, 0.0,
    )  # fmt: skip
    run("matmul", "torch.linear_gelu", fields)
