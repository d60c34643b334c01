# SPDX-License-Identifier: Apache-2.0
"""The matrix product with its epilogue, and the packed form of its second operand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, element_index, reference
from hotloop.reference.dropout import drop
from hotloop.reference.elementwise import ACTIVATIONS, UNARY

PANEL = 16


def pack(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """matrix (k, n) as panels (ceil(n/16), k, 16); columns past n are zero."""
    k, n = matrix.shape
    panels = -(-n // PANEL)
    padded = np.zeros((k, panels * PANEL), matrix.dtype)
    padded[:, :n] = matrix
    return np.ascontiguousarray(padded.reshape(k, panels, PANEL).transpose(1, 0, 2))


def unpack(panels: npt.NDArray[Any], k: int, n: int) -> npt.NDArray[Any]:
    """The matrix (k, n) of flat or shaped panels: the inverse of `pack`."""
    count = -(-n // PANEL)
    shaped = panels.ravel()[: count * k * PANEL].reshape(count, k, PANEL)
    matrix: npt.NDArray[Any] = shaped.transpose(1, 0, 2).reshape(k, count * PANEL)[:, :n]
    return matrix


@reference("pack_panels")
def pack_panels(a: SimpleNamespace, ctx: Context) -> None:
    packed = pack(a.x[element_index((a.k, a.n), (a.stride_k, a.stride_n))])
    a.out[: packed.size] = packed.ravel()


@reference("matmul")
def matmul(a: SimpleNamespace, ctx: Context) -> None:
    left = a.a[element_index((a.m, a.k), (a.a_stride_m, a.a_stride_k))]
    if a.b_packed:
        right = unpack(a.b, a.k, a.n)
    else:
        right = a.b[element_index((a.k, a.n), (a.b_stride_k, a.b_stride_n))]
    where = element_index((a.m, a.n), (a.out_stride, 1))
    if a.row_sum is not None:
        a.row_sum[: a.m] = left.sum(axis=1)
    z = a.alpha * (left @ right)
    if a.beta:
        z = z + a.beta * a.out[where]
    if a.bias is not None:
        z = z + a.bias[: a.n]
    a.out[where] = _epilogue(a, ctx, z, where)


@reference("matmul_parts")
def matmul_parts(a: SimpleNamespace, ctx: Context) -> None:
    left, right = a.a[: a.k * a.m].reshape(a.k, a.m), a.b[: a.k * a.n].reshape(a.k, a.n)
    for p in range(a.parts):
        rows = slice(p * a.depth, (p + 1) * a.depth)
        a.out[p * a.m * a.n : (p + 1) * a.m * a.n] = (left[rows].T @ right[rows]).ravel()
        if a.row_sum is not None:
            a.row_sum[p * a.m : (p + 1) * a.m] = left[rows].sum(axis=0)


def _epilogue(a: SimpleNamespace, ctx: Context, z: Any, where: Any) -> Any:
    """out from z (m, n), and what is saved on the way."""
    function = UNARY[ACTIVATIONS[a.activation]] if a.activation >= 0 else None
    y = z
    if function is not None and a.gate is None:
        y = function.value(z, a.p0, a.p1).astype(z.dtype)
    if a.saved is not None:
        a.saved[where] = y if function is not None and function.reads_output else z
    out = drop(y.ravel(), ctx, a.dropout, a.dropout_row).reshape(y.shape)
    if function is not None and a.gate is not None:
        out = function.grad(a.gate[where], out, a.p0, a.p1)
    return out if a.residual is None else out + a.residual[where]
