# SPDX-License-Identifier: Apache-2.0
"""Moving elements without changing them: reshape, transpose, slice, concat, broadcast, fill.

reshape is a view of the same memory. All others are the one strided copy kernel under different strides.
Targets that hold the batch are attributes encoded by `shape_to_attr`.
"""

from __future__ import annotations

import math
from typing import Any

from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Affine, Node, Rows, TensorType, product
from hotloop.rules.dims import (
    Shape,
    Strides,
    broadcast_shapes,
    broadcast_strides,
    check_one_batch,
    dense_strides,
    merge_dims,
    present,
    real,
    shape_from_attr,
    shape_to_attr,
    show,
    strided_fields,
)
from hotloop.rules.elementwise import reduce_to
from hotloop.rules.registry import Emitter, Lowering, Rule, Types, register

Gradients = tuple["int | None", ...]


def _one(node: Node) -> int:
    return present(node.inputs[0])[0]


def copy_step(ctx: Lowering, out: Any, x: Any, shape: Shape, o: Strides, s: Strides, where: str) -> None:
    """One strided copy of ``shape`` elements: ``out[i . o] = x[i . s]``."""
    dims, (so, sx) = merge_dims(shape, (o, s), where)
    ctx.step("copy", out=out, x=x, **strided_fields(dims, o=so, x=sx))


def before_batch(shape: Shape) -> int | None:
    """How many elements stand before the batch: the product of the dimensions left of it; None: no batch."""
    for axis, dim in enumerate(shape):
        if isinstance(dim, Rows):
            return math.prod(d for d in shape[:axis] if isinstance(d, int))
    return None


# ---- reshape


def _reshape_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x = types[0]
    if x is None:
        raise ShapeError("[reshape] a required operand is missing")
    target = shape_from_attr(attrs["shape"])
    check_one_batch(target, "reshape")
    if product(target) != x.size:
        raise ShapeError(
            f"[reshape] the number of elements changes, got {show(x.shape)} with {x.size!r} to "
            f"{show(target)} with {product(target)!r} (B: rows of the batch)"
        )
    if before_batch(target) != before_batch(x.shape):
        raise ShapeError(
            f"[reshape] rows of the batch would be mixed, got {show(x.shape)} to {show(target)}; "
            "the batch may only take in or give up the dimensions right of it; transpose first"
        )
    return (TensorType(target, x.dtype),)


def _reshape_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    return g.emit("reshape", douts[0], shape=shape_to_attr(g.type(_one(node)).shape))


def _no_step(ctx: Lowering, node: Node) -> None:
    """The output is the input's memory."""


# ---- transpose: out[i] = x[i[perm^-1]]


def _transpose_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x = real(types[0], "transpose")
    perm = attrs["perm"]
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"[transpose] perm is no permutation of the axes of {show(x.shape)}, got {perm}")
    return (TensorType(tuple(x.shape[p] for p in perm)),)


def _transpose_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    perm = node.attr["perm"]
    return g.emit("transpose", douts[0], perm=tuple(perm.index(i) for i in range(len(perm))))


def _transpose_lower(ctx: Lowering, node: Node) -> None:
    x, out = _one(node), node.outputs[0]
    own = dense_strides(ctx.type(x).shape)
    shape = ctx.type(out).shape
    read = tuple(own[p] for p in node.attr["perm"])
    copy_step(ctx, ctx.value(out), ctx.value(x), shape, dense_strides(shape), read, "transpose")


# ---- slice: x[starts:stops], one pair per axis;  pad: its gradient, zeros around


def _slice_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x = real(types[0], "slice")
    starts, stops = attrs["starts"], attrs["stops"]
    if not len(starts) == len(stops) == x.rank:
        raise ShapeError(f"[slice] one range an axis is needed, got {len(starts)} for {show(x.shape)}")
    shape = list(x.shape)
    for axis, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        dim = shape[axis]
        if stop is None and start == 0:  # the whole axis; the only range of a batch
            continue
        if isinstance(dim, Rows) or not 0 <= start < stop <= dim:
            raise ShapeError(
                f"[slice] range {start}:{stop} does not fit axis {axis} of {show(x.shape)}; allowed are "
                "non-empty ranges inside an axis that is not the batch"
            )
        shape[axis] = stop - start
    return (TensorType(tuple(shape)),)


def _slice_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    shape = g.type(_one(node)).shape
    pairs = zip(node.attr["starts"], node.attr["stops"], shape, strict=True)
    after = tuple(0 if stop is None or isinstance(dim, Rows) else dim - stop for _, stop, dim in pairs)
    return g.emit("pad", douts[0], before=node.attr["starts"], after=after)


def _offset(strides: Strides, starts: tuple[int, ...], where: str) -> int:
    """Elements before the first one; behind the batch only, where strides are plain numbers."""
    total = Affine(0, 0)
    for stride, start in zip(strides, starts, strict=True):
        total = Affine(total.per_row + stride.per_row * start, total.const + stride.const * start)
    if total.per_row:
        raise GraphError(
            f"[{where}] an axis before the batch cannot be cut or joined; transpose it behind the batch"
        )
    return total.const


def _slice_lower(ctx: Lowering, node: Node) -> None:
    x, out = _one(node), node.outputs[0]
    shape, own = ctx.type(out).shape, dense_strides(ctx.type(x).shape)
    offset = _offset(own, node.attr["starts"], "slice")
    copy_step(ctx, ctx.value(out), ctx.value(x, offset), shape, dense_strides(shape), own, "slice")


def _pad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x = real(types[0], "pad")
    grown = [b + a for b, a in zip(attrs["before"], attrs["after"], strict=True)]
    return (
        TensorType(tuple(d + n if isinstance(d, int) else d for d, n in zip(x.shape, grown, strict=True))),
    )


def _pad_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    before = node.attr["before"]
    dims = g.type(_one(node)).shape
    stops = tuple(None if isinstance(d, Rows) else b + d for b, d in zip(before, dims, strict=True))
    return g.emit("slice", douts[0], starts=before, stops=stops)


def _pad_lower(ctx: Lowering, node: Node) -> None:
    x, out = _one(node), node.outputs[0]
    shape, wide = ctx.type(x).shape, dense_strides(ctx.type(out).shape)
    offset = _offset(wide, node.attr["before"], "pad")
    ctx.step("fill", out=ctx.value(out), n=ctx.type(out).size, value=0.0)
    copy_step(ctx, ctx.value(out, offset), ctx.value(x), shape, wide, dense_strides(shape), "pad")


# ---- concat


def _concat_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    parts = [real(t, "concat") for t in types]
    axis, first = attrs["axis"], parts[0]
    total = 0
    for i, part in enumerate(parts):
        dim = part.shape[axis] if part.rank == first.rank and 0 <= axis < part.rank else None
        if not isinstance(dim, int) or _without(part.shape, axis) != _without(first.shape, axis):
            raise ShapeError(
                f"[concat] part {i} does not fit along axis {axis}, got {show(part.shape)} beside "
                f"{show(first.shape)}; all other dimensions must be equal, and the axis must not be the batch"
            )
        total += dim
    return (TensorType((*first.shape[:axis], total, *first.shape[axis + 1 :])),)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _concat_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    axis, begin, grads = node.attr["axis"], 0, []
    for part in present(*node.inputs):
        shape = g.type(part).shape
        end = begin + int(shape[axis])
        starts = tuple(begin if i == axis else 0 for i in range(len(shape)))
        stops = tuple(end if i == axis else None for i in range(len(shape)))
        grads.append(g.emit("slice", douts[0], starts=starts, stops=stops)[0])
        begin = end
    return tuple(grads)


def _concat_lower(ctx: Lowering, node: Node) -> None:
    axis, out, begin = node.attr["axis"], node.outputs[0], 0
    wide = dense_strides(ctx.type(out).shape)
    for part in present(*node.inputs):
        shape = ctx.type(part).shape
        offset = _offset((wide[axis],), (begin,), "concat")
        copy_step(ctx, ctx.value(out, offset), ctx.value(part), shape, wide, dense_strides(shape), "concat")
        begin += int(shape[axis])


# ---- broadcast_to, copy, fill


def _broadcast_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x, target = real(types[0], "broadcast_to"), shape_from_attr(attrs["shape"])
    if broadcast_shapes(x.shape, target, "broadcast_to") != target:
        raise ShapeError(f"[broadcast_to] {show(x.shape)} does not broadcast to {show(target)}")
    return (TensorType(target),)


def _broadcast_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    return (reduce_to(g, present(*douts)[0], g.type(_one(node)).shape),)


def _broadcast_lower(ctx: Lowering, node: Node) -> None:
    x, out = _one(node), node.outputs[0]
    shape = ctx.type(out).shape
    read = broadcast_strides(ctx.type(x).shape, shape)
    copy_step(ctx, ctx.value(out), ctx.value(x), shape, dense_strides(shape), read, "broadcast_to")


def _copy_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[0], "copy"),)


def _copy_lower(ctx: Lowering, node: Node) -> None:
    x, out = _one(node), node.outputs[0]
    shape = ctx.type(x).shape
    dense = dense_strides(shape)
    copy_step(ctx, ctx.value(out), ctx.value(x), shape, dense, dense, "copy")


def _fill_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (TensorType(shape_from_attr(attrs["shape"])),)


def _fill_lower(ctx: Lowering, node: Node) -> None:
    out = node.outputs[0]
    ctx.step("fill", out=ctx.value(out), n=ctx.type(out).size, value=float(node.attr["value"]))


def _inverse_size_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (TensorType(()),)


def _inverse_size_lower(ctx: Lowering, node: Node) -> None:
    # 1/n for an n that only the run knows: the mean of (1, 0, 0, ...)
    n = product(shape_from_attr(node.attr["shape"]))
    ones = ctx.scratch(n)
    ctx.step("fill", out=ones, n=n, value=0.0)
    ctx.step("fill", out=ones, n=1, value=1.0)
    ctx.step("reduce_sum", out=ctx.value(node.outputs[0]), x=ones, outer=1, reduce=n, inner=1, mean=1)


register(Rule("reshape", _reshape_shape, _no_step, grad=_reshape_grad, alias=True))
register(Rule("transpose", _transpose_shape, _transpose_lower, grad=_transpose_grad))
register(Rule("slice", _slice_shape, _slice_lower, grad=_slice_grad))
register(Rule("pad", _pad_shape, _pad_lower, grad=_pad_grad))
register(Rule("concat", _concat_shape, _concat_lower, grad=_concat_grad))
register(Rule("broadcast_to", _broadcast_shape, _broadcast_lower, grad=_broadcast_grad))
register(Rule("copy", _copy_shape, _copy_lower, grad=lambda g, node, douts: douts))
register(Rule("fill", _fill_shape, _fill_lower))
register(Rule("inverse_size", _inverse_size_shape, _inverse_size_lower))
