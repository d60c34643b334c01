# SPDX-License-Identifier: Apache-2.0
"""What `hotloop.ops` does with views of a device: kernels launched in the order of streams, and the few operations of
NumPy's that the functions need beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hotloop.errors import DTypeError, LabelError, ShapeError
from hotloop.ops.device import View, dense_strides, new

#: FeedType of csrc/cuda/device_step.h.
_INDEX_TYPES = {np.dtype(np.uint8): 0, np.dtype(np.int32): 1, np.dtype(np.int64): 2}


def launch(name: str, fields: tuple[Any, ...], **context: Any) -> None:
    """Run a kernel, and let the owners of its operands go on after it. Raises `DeviceError`."""
    views = [f for f in fields if isinstance(f, View)]
    held = [upload(views[0], f) if isinstance(f, np.ndarray) else f for f in fields]  # numbers of a step
    given = tuple(f.address if isinstance(f, View) else f for f in held)
    views[0].queue.launch(name, given, **context)
    settle(views)


def settle(views: list[View]) -> None:
    """What the owners of these launch from now on comes after what we have launched."""
    queue = views[0].queue
    if any(view.waits for view in views):
        queue.wait()
        return
    for stream in {view.stream for view in views if view.stream is not None}:
        queue.before(stream)


def dense(x: View, beside: View | None, in_place: bool) -> View:
    """``x`` in C order and apart from ``beside``, as `arrays.dense`."""
    if x.c_contiguous and not (beside is not None and overlap(x, beside)):
        return x
    if x.c_contiguous and in_place and beside is not None and x.address == beside.address:
        return x
    copied = new(x, x.shape)
    assign(copied, x)
    return copied


def overlap(a: View, b: View) -> bool:
    """Whether the two may share a byte."""
    (a0, a1), (b0, b1) = a.extent(), b.extent()
    return a0 < b1 and b0 < a1


def assign(to: View, x: View) -> None:
    """``to[...] = x``, of one shape, in any strides."""
    if not x.size:
        return
    dims = _joined(to, x)
    if len(dims) > 4 or any(s % 4 or s < 0 for _, *strides in dims for s in strides):
        raise ShapeError(
            f"[ops] an array of {x.shape} with strides {x.strides} is not copied on a device; make it contiguous"
        )
    dims = [(1, 0, 0)] * (4 - len(dims)) + dims
    fields = (to, x, *(n for n, *_ in dims), *(o // 4 for _, o, _ in dims), *(i // 4 for *_, i in dims))
    launch("copy", fields)


def _joined(to: View, x: View) -> list[tuple[int, int, int]]:
    """(size, stride of to, stride of x) of each dimension, neighbours that lie one behind the other joined."""
    dims: list[tuple[int, int, int]] = []
    for n, o, i in zip(to.shape, to.strides, x.strides, strict=True):
        if n == 1:
            continue
        if dims and dims[-1][1] == n * o and dims[-1][2] == n * i:
            dims[-1] = (dims[-1][0] * n, o, i)
        else:
            dims.append((n, o, i))
    return dims


def filled(like: View, count: int, value: float) -> View:
    """(count,) of one number."""
    made = new(like, (count,), np.float32)
    launch("fill", (made, count, value))
    return made


def upload(like: View, array: np.ndarray[Any, Any]) -> View:
    """A copy of a small array of the host, beside ``like``."""
    made = new(like, array.shape, array.dtype)
    like.queue.upload(made.address, array)
    return made


def mean(x: View) -> float:
    """The mean of x (n,), summed in double; waits for it."""
    weight = filled(x, x.size, 1.0)
    numbers = upload(x, np.zeros(3))
    totals = replace(numbers, address=numbers.address + 8, shape=(2,))
    launch("loss_stats", (numbers, totals, x, weight, x.size))
    host = np.empty(1)
    x.queue.download(host, numbers.address)
    return float(host[0])


def indices(x: View, where: str, name: str, below: int) -> View:
    """Whole numbers in [0, below) as int32, C-contiguous; waits for the check. As `arrays.indices`."""
    kind = _INDEX_TYPES.get(x.dtype)
    if kind is None:
        raise DTypeError(
            f"[ops.{where}] {name} must be uint8, int32 or int64 on a device, got {x.dtype}; convert it first"
        )
    if not x.c_contiguous:
        raise ShapeError(
            f"[ops.{where}] {name} must be C-contiguous on a device, got strides {x.strides}; copy it first"
        )
    if not x.size:
        return replace(x, dtype=np.dtype(np.int32))
    at = x.queue.first_outside(x.address, kind, x.size, 0.0, float(below - 1))
    if at >= 0:
        found = np.empty(1, x.dtype)
        x.queue.download(found, x.address + at * x.dtype.itemsize)
        place = ", ".join(str(int(i)) for i in np.unravel_index(at, x.shape))
        raise LabelError(f"[ops.{where}] {name}[{place}] is {found[0]}; allowed 0 to {below - 1}")
    if x.dtype == np.int32:
        return x
    converted = new(x, x.shape, np.int32)
    x.queue.convert(x.address, kind, x.size, converted.address, to_index=True)
    settle([x])
    return converted


def multiply(
    out: View, left: View, right: View, bias: View | None, shape: tuple[int, ...], index: int,
    parameters: tuple[float, float], alpha: float, beta: float,
) -> None:  # fmt: skip
    """``out (..., m, n) = activation(alpha left right + beta out + bias)``: matrices in any strides, one by one.

    ``shape``: of out, with the dimensions that vectors lack.
    """
    if not out.size:
        return
    out = replace(out, shape=shape, strides=dense_strides(shape, out.dtype))
    batch, (m, n), k = shape[:-2], shape[-2:], left.shape[-1]
    left, right = _upward(left), _upward(right)
    bias = None if bias is None else dense(bias, None, False)
    full = [x.spread((*batch, *x.shape[-2:])) for x in (left, right)]
    for item in np.ndindex(*batch):
        at_out, at_left, at_right = (
            replace(x, address=x.address + sum(i * s for i, s in zip(item, x.strides, strict=False)))
            for x in (out, *full)
        )
        a, b = ([s // 4 for s in x.strides[-2:]] for x in full)
        fields = (
            at_out, None, None, at_left, at_right, bias, None, None, m, n, k, *a, *b, n, 0, 0, index, -1,
            alpha, beta, *parameters,
        )  # fmt: skip
        launch("matmul", fields)


def _upward(x: View) -> View:
    """``x`` with strides that are whole, and not negative."""
    return x if all(s >= 0 and s % 4 == 0 for s in x.strides) else dense(x, None, False)
