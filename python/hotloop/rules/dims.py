# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on shapes in which one dimension may follow the batch.

Shape rules and lowering meet the same few questions: which shape do two shapes broadcast to, what are the
dense strides, and which adjacent dimensions are one dimension to a strided kernel. They are answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hotloop.errors import DTypeError, GraphError, ShapeError
from hotloop.graph import Affine, Attr, Dim, Rows, TensorType, product

Shape = tuple[Dim, ...]
Strides = tuple[Affine, ...]

#: Dimensions that the strided kernels (copy, add, ...) walk; kMaxDims in args.h.
MAX_DIMS = 4
ZERO = Affine(0, 0)


def times(size: Affine, dim: Dim) -> Affine:
    """``size * dim``, of which at most one follows the batch."""
    if isinstance(dim, int):
        return size * dim
    if size.per_row:
        raise GraphError(f"[shape] a shape may hold the batch once, got {size!r} times {dim!r}")
    return Affine(size.const * dim.per_row, 0)


def dense_strides(shape: Shape) -> Strides:
    """Row-major strides in elements: ``strides[i] = product(shape[i + 1:])``."""
    strides = [Affine(0, 1)] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = times(strides[i + 1], shape[i + 1])
    return tuple(strides)


def broadcast_strides(shape: Shape, out: Shape) -> Strides:
    """Strides that read a dense tensor of ``shape`` as if it had the shape ``out``: 0 where repeated."""
    missing = len(out) - len(shape)
    own = dense_strides(shape)
    return (ZERO,) * missing + tuple(
        ZERO if dim == 1 and out[missing + i] != 1 else own[i] for i, dim in enumerate(shape)
    )


def broadcast_shapes(a: Shape, b: Shape, where: str) -> Shape:
    """NumPy's broadcasting. The batch matches only itself and 1: raises `ShapeError` otherwise."""
    rank = max(len(a), len(b))
    padded_a: Shape = (1,) * (rank - len(a)) + a
    padded_b: Shape = (1,) * (rank - len(b)) + b
    out: list[Dim] = []
    for axis, (p, q) in enumerate(zip(padded_a, padded_b, strict=True)):
        if p != q and 1 not in (p, q):
            raise ShapeError(
                f"[{where}] shapes do not broadcast, got {show(a)} and {show(b)}: axis {axis - rank} is "
                f"{p!r} against {q!r}; allowed are equal dimensions or 1; reshape or transpose one of them"
            )
        out.append(q if p == 1 else p)
    check_one_batch(tuple(out), where)
    return tuple(out)


def check_one_batch(shape: Shape, where: str) -> None:
    if sum(isinstance(d, Rows) for d in shape) > 1:
        raise ShapeError(
            f"[{where}] the result would hold the batch twice, got {show(shape)}; rows cannot be paired"
        )


def resolve_shape(x: Shape, wanted: tuple[Any, ...], where: str) -> Shape:
    """Fills in the one -1 of ``wanted``; raises `ShapeError` if it cannot be a whole dimension."""
    if any(not isinstance(d, (int, Rows)) or (isinstance(d, int) and d < -1) for d in wanted):
        raise ShapeError(
            f"[{where}] dimensions are whole numbers, entries of x.shape, or one -1, got {wanted}"
        )
    if wanted.count(-1) == 0:
        return wanted
    known = tuple(d for d in wanted if d != -1)
    if wanted.count(-1) > 1 or 0 in known:
        raise ShapeError(f"[{where}] only one dimension can be -1, and beside no 0, got {wanted}")
    check_one_batch(known, where)
    have, given = product(x), product(known)
    missing = _quotient(have, given)
    if missing is None:
        raise ShapeError(
            f"[{where}] {show(x)} has {have!r} elements, which {given!r} does not divide, got {wanted}; "
            "the batch is symbolic: write it as -1 or x.shape[0]"
        )
    return tuple(missing if d == -1 else d for d in wanted)


def _quotient(have: Affine, given: Affine) -> int | Rows | None:
    if given.per_row:
        whole = have.per_row % given.per_row == 0 and have.per_row > 0
        return have.per_row // given.per_row if whole else None
    if have.per_row:
        return Rows(have.per_row // given.const) if have.per_row % given.const == 0 else None
    return have.const // given.const if have.const % given.const == 0 else None


def merge_dims(
    shape: Shape, operands: Sequence[Strides], where: str
) -> tuple[list[Affine], list[list[Affine]]]:
    """Dimensions and strides for a kernel of `MAX_DIMS` dimensions.

    Neighbours i, i+1 become one where every operand has ``stride[i] == stride[i+1] * shape[i+1]``; then ones
    fill up from the left. More dimensions than fit raise `GraphError`.
    """
    dims: list[Affine] = []
    merged: list[list[Affine]] = [[] for _ in operands]
    for axis in range(len(shape) - 1, -1, -1):
        dim = shape[axis]
        if dim == 1:
            continue
        here = [strides[axis] for strides in operands]
        if dims and all(s == _reach(m[-1], dims[-1]) for s, m in zip(here, merged, strict=True)):
            dims[-1] = times(dims[-1], dim)
        else:
            dims.append(times(Affine(0, 1), dim))
            for m, stride in zip(merged, here, strict=True):
                m.append(stride)
    if len(dims) > MAX_DIMS:
        raise GraphError(
            f"[{where}] {len(dims)} dimensions remain of {show(shape)} after merging; allowed {MAX_DIMS}; "
            "reshape to fewer dimensions first"
        )
    fill = MAX_DIMS - len(dims)
    return [Affine(0, 1)] * fill + dims[::-1], [[ZERO] * fill + m[::-1] for m in merged]


def _reach(stride: Affine, extent: Affine) -> Affine | None:
    """``stride * extent``: what the next outer stride must be for the two dimensions to be one."""
    if stride == ZERO:
        return ZERO
    if stride.per_row and extent.per_row:
        return None
    if extent.per_row:
        return Affine(stride.const * extent.per_row, 0)
    return stride * extent.const


def strided_fields(dims: Sequence[Affine], **strides: Sequence[Affine]) -> dict[str, Affine]:
    """Kernel fields d0..d3 and, for each keyword, its letter with 0..3."""
    fields = {f"d{i}": d for i, d in enumerate(dims)}
    for letter, values in strides.items():
        fields.update({f"{letter}{i}": s for i, s in enumerate(values)})
    return fields


def shape_to_attr(shape: Shape) -> Attr:
    """A shape as an attribute: the batch becomes ``("B", per_row)``."""
    return tuple(("B", d.per_row) if isinstance(d, Rows) else d for d in shape)


def shape_from_attr(attr: Any) -> Shape:
    return tuple(Rows(d[1]) if isinstance(d, tuple) else d for d in attr)


def show(shape: Shape) -> str:
    return f"({', '.join(map(repr, shape))}{',' if len(shape) == 1 else ''})"


def present(*values: int | None) -> tuple[int, ...]:
    """The same values, none of which may be absent."""
    if any(v is None for v in values):
        raise ShapeError(f"[rules] a required operand is missing, got {values}")
    return values  # type: ignore[return-value]


def per_element(count: int) -> Callable[[Sequence[TensorType | None], dict[str, Any]], Affine]:
    """The flops rule of ``count`` operations an element of the first operand."""

    def flops(types: Sequence[TensorType | None], attrs: dict[str, Any]) -> Affine:
        return Affine() if types[0] is None else types[0].size * count

    return flops


def real(type_: TensorType | None, where: str) -> TensorType:
    """The type of a required operand of real numbers."""
    if type_ is None:
        raise ShapeError(f"[{where}] a required operand is missing")
    if type_.dtype != "real":
        raise DTypeError(
            f"[{where}] integer ids go only through reshape into an embedding, got {type_!r}; "
            "give each kind of id as an input of its own, and numbers as a float input"
        )
    return type_


def expect_shape(type_: TensorType | None, shape: Shape, where: str) -> None:
    """An absent or real operand of exactly ``shape``."""
    if type_ is not None and real(type_, where).shape != shape:
        raise ShapeError(f"[{where}] shape does not fit, got {show(type_.shape)}; expected {show(shape)}")
