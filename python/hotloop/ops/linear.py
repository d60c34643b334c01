# SPDX-License-Identifier: Apache-2.0
"""`matmul`: the product of matrices, with what often follows it done while a block of the result is in cache."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Union

import numpy as np

from hotloop import _core
from hotloop.errors import ShapeError
from hotloop.ops import device, device_work
from hotloop.ops.arrays import Array, out_array, overlap, real_arrays, returned
from hotloop.ops.launch import launch, scratch

_PANEL = 16  # kPanel of args.h
#: B's rows are copied into panels from this many columns and rows of A on; see rules/matmul.py for why.
_PACK_COLUMNS, _PACK_ROWS = 1024, 85
_NS_PER_MULTIPLY_ADD = 0.02  # of one AVX2 core; a wider one is faster
#: Parameters of activations that have any: torch's defaults.
_PARAMETERS = {"leaky_relu": (0.01, 0.0), "elu": (1.0, 0.0), "softplus": (1.0, 20.0)}


def matmul(
    a: Any, b: Any, *, bias: Any = None, activation: Union[str, None] = None, transpose_a: bool = False,
    transpose_b: bool = False, alpha: float = 1.0, beta: float = 0.0, out: Any = None,
) -> Any:  # fmt: skip
    """``activation(alpha * a @ b + beta * out + bias)`` for float32 or float64 arrays.

    Args:
        a, b: (..., m, k) and (..., k, n), or a vector in place of either, as in `numpy.matmul`; leading
            dimensions broadcast. Any strides; rows of a matrix that lie apart are read in place.
        bias: (n,), added to every row.
        activation: the name of a function of this module of one argument, such as "relu" or "gelu".
        transpose_a, transpose_b: read that operand with its last two dimensions exchanged, without a copy of it.
        alpha, beta: factors; with ``beta=0`` what was in ``out`` is ignored, NaN included.
        out: C-contiguous array for the result; needed if ``beta`` is not 0. It may not overlap a or b.

    Returns an array of a's kind, or ``out``. Raises `ShapeError`, `DTypeError`, `ValueError` or `TypeError`.

    >>> import numpy as np, hotloop as hl
    >>> a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    >>> hl.ops.matmul(a, b, bias=np.arange(4, dtype=np.float32) - 5, activation="relu")
    array([[0., 0., 0., 1.],
           [0., 0., 0., 1.]], dtype=float32)
    """
    index = _activation(activation)
    p0, p1 = _PARAMETERS.get(activation or "", (0.0, 0.0))
    found = _core.plain_matmul(a, b, bias, index, transpose_a, transpose_b, out, p0, p1, alpha, beta)
    if found is not None:
        return found
    left, right, shift = real_arrays("matmul", a=a, b=b, bias=bias)
    left, right, squeeze = _matrices(left, right, transpose_a, transpose_b)
    m, n = left.shape[-2], right.shape[-1]
    _check(left, right, shift, n)
    batch = _batch(left, right)
    shape = tuple(
        d for d, keep in zip((*batch, m, n), (*(True for _ in batch), *squeeze), strict=True) if keep
    )
    if beta and out is None:
        raise ValueError(f"[ops.matmul] beta={beta} needs out, which it multiplies")
    result = out_array(out, shape, left, "matmul")
    if out is not None and any(overlap(result, x) for x in (left, right, shift) if x is not None):
        raise ValueError("[ops.matmul] out overlaps an operand; give it memory of its own")
    if isinstance(result, device.View):
        device_work.multiply(result, left, right, shift, (*batch, m, n), index, (p0, p1), alpha, beta)
        return returned(result, a, out)
    target = result.reshape(*batch, m, n)
    _multiply(target, left, right, shift, index, (p0, p1), alpha, beta)
    return returned(result, a, out)


def into(
    out: Array, a: Array, b: Array, *, bias: Array | None = None, activation: Union[str, None] = None,
    saved: Array | None = None, row_sum: Array | None = None,
) -> None:  # fmt: skip
    """``out (..., m, n) = activation(a (..., m, k) @ b (k, n) + bias)`` for whoever has checked them.

    ``saved``, like out, gets what the activation's gradient reads; ``row_sum`` (m,) the sums of a's rows.
    """
    if not out.size:
        if row_sum is not None:
            row_sum[...] = a.sum(-1)
        return
    index = _activation(activation)
    parameters = _PARAMETERS.get(activation or "", (0.0, 0.0))
    if a.ndim == 2 or (a.ndim > 2 and a.flags.c_contiguous):
        rows = math.prod(a.shape[:-1])
        flat, wide = a.reshape(rows, a.shape[-1]), out.reshape(rows, out.shape[-1])
        found = _core.plain_matmul(
            flat, b, bias, index, False, False, wide, *parameters, 1.0, 0.0, saved, row_sum
        )
        if found is not None:
            return
    left = a[None] if a.ndim == 1 else a
    target = out.reshape(*left.shape[:-1], out.shape[-1])
    _multiply(target, left, b, bias, index, parameters, 1.0, 0.0, saved=saved, row_sum=row_sum)


def _activation(name: Union[str, None]) -> int:
    """The function's number among the activations; -1 for none."""
    if name is None:
        return -1
    index = _core.activation_index(name) if isinstance(name, str) else -1
    if index < 0:
        functions = [kernel[:-4] for kernel in _core.kernels() if kernel.endswith("_fwd")]
        allowed = ", ".join(f for f in functions if _core.activation_index(f) >= 0)
        raise ValueError(f"[ops.matmul] unknown activation {name!r}; allowed: {allowed}")
    return index


def _matrices(
    a: Array, b: Array, transpose_a: bool, transpose_b: bool
) -> tuple[Array, Array, tuple[bool, bool]]:
    """Both as matrices, transposed as asked, and which of the result's last two dimensions stay."""
    for name, x in (("a", a), ("b", b)):
        if x.ndim == 0:
            raise ShapeError(f"[ops.matmul] {name} must have at least one dimension, got a number")
    squeeze = (a.ndim > 1, b.ndim > 1)
    left = a[None] if a.ndim == 1 else a.swapaxes(-1, -2) if transpose_a else a
    right = b[:, None] if b.ndim == 1 else b.swapaxes(-1, -2) if transpose_b else b
    return left, right, squeeze


def _check(left: Array, right: Array, bias: Array | None, n: int) -> None:
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(
            f"[ops.matmul] a {left.shape} has {left.shape[-1]} columns, b {right.shape} has {right.shape[-2]} rows; "
            "they must be equal (after transpose_a, transpose_b)"
        )
    if bias is not None and bias.shape != (n,):
        raise ShapeError(f"[ops.matmul] bias must be ({n},), got {bias.shape}")


def _batch(left: Array, right: Array) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"[ops.matmul] leading dimensions {left.shape[:-2]} and {right.shape[:-2]} do not broadcast"
        ) from None


def _multiply(
    out: Array, left: Array, right: Array, bias: Array | None, index: int, parameters: tuple[float, float],
    alpha: float, beta: float, *, saved: Array | None = None, row_sum: Array | None = None,
) -> None:  # fmt: skip
    """``out (..., m, n) = activation(alpha left right + beta out + bias)``; the rest as `into`."""
    batch, (m, n), k = out.shape[:-2], out.shape[-2:], left.shape[-1]
    if right.ndim == 2 and left.flags.c_contiguous:  # all rows of all matrices are one tall matrix
        batch, m = (), math.prod(out.shape[:-1])
        left, out = left.reshape(m, k), out.reshape(m, n)
    bias = None if bias is None else np.ascontiguousarray(bias)
    items = math.prod(batch)
    if not out.size:
        return
    if items > 1 and n >= _PACK_COLUMNS and m >= _PACK_ROWS and saved is None and row_sum is None:
        # one by one, each as fast as by itself, with the panels of one B in memory
        lefts, rights = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (left, right))
        for item in np.ndindex(*batch):
            _multiply(out[item], lefts[item], rights[item], bias, index, parameters, alpha, beta)
        return
    left, step_a = _stepped(left, batch)
    right, step_b = _stepped(right, batch)
    left = _upward(left)
    item = left.dtype.itemsize
    b, b_packed, b_stride, step_b = _panels(right, m, items, step_b)
    fields = (
        out, saved, row_sum, left, b, bias, None, None, m, n, k,
        left.strides[-2] // item, left.strides[-1] // item, b_stride, 1, n, 0,
        int(b_packed), index, -1, alpha, beta, *parameters,
    )  # fmt: skip
    steps = [m * n, 0, 0, step_a, step_b, *(0 for _ in fields[5:])] if items > 1 else []
    work = items * m * n * k * _NS_PER_MULTIPLY_ADD
    launch("matmul", out.dtype, fields, work, items=items, steps=steps)


def _stepped(x: Array, batch: tuple[int, ...]) -> tuple[Array, int]:
    """An operand whose matrices lie evenly apart, and how far (elements); copied if they do not."""
    if not batch:
        return x, 0
    full = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    places = [(d, s) for d, s in zip(full.shape[:-2], full.strides[:-2], strict=True) if d > 1]
    step = places[-1][1] if places else 0
    even = all(s == d * t for (_, s), (d, t) in pairwise(places))
    if not even or step % x.itemsize:
        full = np.ascontiguousarray(full)
        step = full.strides[len(batch) - 1]
    return full, step // x.itemsize


def _upward(x: Array) -> Array:
    """``x`` with strides that are whole, and not negative: kernels walk upward."""
    bad = any(s < 0 or s % x.itemsize for s in x.strides[-2:])
    return np.ascontiguousarray(x) if bad else x


def _panels(b: Array, m: int, items: int, step: int) -> tuple[Array, bool, int, int]:
    """(B, whether in panels, row stride, step from item to item): in panels where the kernel cannot read B as it
    lies, or where many rows pay for the copy."""
    k, n = b.shape[-2:]
    item = b.itemsize
    in_rows = n == 1 or k == 0 or b.strides[-1] == item
    readable = in_rows and b.strides[-2] >= 0 and b.strides[-2] % item == 0
    if readable and (n < _PACK_COLUMNS or m < _PACK_ROWS or items > 1):
        return b, False, b.strides[-2] // item, step
    b = _upward(b)
    if not b.size:
        return b, False, n, 0
    size = -(-n // _PANEL) * _PANEL * k
    matrices = 1 if step == 0 else items
    panels = scratch(matrices * size, b.dtype)
    fields = (panels, b, k, n, b.strides[-2] // item, b.strides[-1] // item)
    steps = [size, step, 0, 0, 0, 0] if matrices > 1 else []
    launch("pack_panels", b.dtype, fields, matrices * k * n * 0.5, items=matrices, steps=steps)
    return panels, True, 0, size if matrices > 1 else 0
