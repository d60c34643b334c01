# SPDX-License-Identifier: Apache-2.0
"""What `hotloop.ops` does with views of a device: kernels launched in the order of streams, and the few operations of
NumPy's that the functions need beside them."""

from __future__ import annotations

import math
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
    given = tuple(f.address if isinstance(f, View) else f for f in fields)
    views[0].queue.launch(name, given, **context)
    settle(views)


def update_list(name: str, rows: list[tuple[Any, ...]]) -> None:
    """One update of an optimiser for each row of fields, all in one launch or few. Raises `DeviceError`."""
    views = [f for fields in rows for f in fields if isinstance(f, View)]
    given = [tuple(f.address if isinstance(f, View) else f for f in fields) for fields in rows]
    views[0].queue.update_list(name, given)
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
    dims = _joined(x.shape, to.strides, x.strides)
    if len(dims) > 4 or any(s % 4 or s < 0 for _, *strides in dims for s in strides):
        raise ShapeError(
            f"[ops] an array of {x.shape} with strides {x.strides} is not copied on a device; make it contiguous"
        )
    dims = [(1, 0, 0)] * (4 - len(dims)) + dims
    fields = (to, x, *(n for n, *_ in dims), *(o // 4 for _, o, _ in dims), *(i // 4 for *_, i in dims))
    launch("copy", fields)


def _joined(shape: tuple[int, ...], *strides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """(size, stride of each operand) of each dimension, neighbours that lie one behind the other joined."""
    dims: list[tuple[int, ...]] = []
    for n, *steps in zip(shape, *strides, strict=True):
        if n == 1:
            continue
        if dims and all(outer == n * step for outer, step in zip(dims[-1][1:], steps, strict=True)):
            dims[-1] = (dims[-1][0] * n, *steps)
        else:
            dims.append((n, *steps))
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
    x.queue.to_index(x.address, kind, x.size, converted.address)
    settle([x])
    return converted


def multiply(
    out: View, left: View, right: View, bias: View | None, shape: tuple[int, ...], index: int,
    parameters: tuple[float, float], alpha: float, beta: float,
) -> None:  # fmt: skip
    """``out (..., m, n) = activation(alpha left right + beta out + bias)``: matrices in any strides.

    One launch, where the places of all matrices are told by two dimensions. ``shape``: of out, with the
    dimensions that vectors lack.
    """
    if not out.size:
        return
    out = replace(out, shape=shape, strides=dense_strides(shape, out.dtype))
    left, right = _upward(left), _upward(right)
    bias = None if bias is None else dense(bias, None, False)
    if (
        right.ndim == 2 and left.ndim > 2 and left.c_contiguous
    ):  # all rows of all matrices are one tall matrix
        rows = math.prod(shape[:-1])
        out, left = (replace(x, shape=(rows, x.shape[-1]), strides=x.strides[-2:]) for x in (out, left))
    batch, (m, n), k = out.shape[:-2], out.shape[-2:], left.shape[-1]
    full = [x.spread((*batch, *x.shape[-2:])) for x in (left, right)]
    a, b = ([s // 4 for s in x.strides[-2:]] for x in full)
    dims = _joined(batch, *(x.strides[:-2] for x in (*full, out)))
    within = [(1, 0, 0, 0)] * (2 - len(dims)) + dims[-2:]
    steps = [within[d][operand] // 4 for operand in (1, 2, 3) for d in (0, 1)]
    queue = out.queue
    for at in np.ndindex(*(d[0] for d in dims[:-2])):
        moved = [sum(i * d[operand] for i, d in zip(at, dims, strict=False)) for operand in (1, 2, 3)]
        fields = (
            out.address + moved[2], None, None, left.address + moved[0], right.address + moved[1],
            None if bias is None else bias.address, None, None, m, n, k, *a, *b, n, 0, 0, index, -1,
            alpha, beta, *parameters,
        )  # fmt: skip
        queue.multiply(fields, [d[0] for d in within] + steps)
    settle([out, left, right] if bias is None else [out, left, right, bias])


def _upward(x: View) -> View:
    """``x`` with strides that are whole, and not negative."""
    return x if all(s >= 0 and s % 4 == 0 for s in x.strides) else dense(x, None, False)
