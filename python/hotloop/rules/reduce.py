# SPDX-License-Identifier: Apache-2.0
"""Sums, means and maxima over axes; the batch may be among them.

The kernels see (outer, reduce, inner): one run of neighbouring axes a call. A sum over several runs is
several calls. A maximum takes one run, because its gradient shares among ties of the whole reduction.
"""

from __future__ import annotations

from typing import Any

from hotloop.errors import ShapeError
from hotloop.graph import Affine, Node, Rows, TensorType, product
from hotloop.rules.dims import Shape, per_element, present, real, shape_to_attr, show
from hotloop.rules.registry import Emitter, Lowering, Rule, ShapeRule, Types, register

Gradients = tuple["int | None", ...]


def _one(node: Node) -> int:
    return present(node.inputs[0])[0]


def kept_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """The shape with every reduced axis left as 1."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def _shape(name: str) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        x, axes = real(types[0], name), attrs["axes"]
        if list(axes) != sorted(set(axes)) or not all(0 <= a < x.rank for a in axes):
            raise ShapeError(
                f"[{name}] axes must be different and lie in 0..{x.rank - 1}, got {axes} of {show(x.shape)}"
            )
        if attrs["keepdim"]:
            return (TensorType(kept_shape(x.shape, axes)),)
        return (TensorType(tuple(d for i, d in enumerate(x.shape) if i not in axes)),)

    return shape


def runs(shape: Shape, axes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Maximal runs [begin, end) of reduced axes; axes of length 1 belong to any run and start none."""
    found: list[tuple[int, int]] = []
    open_run = False
    for i, dim in enumerate(shape):
        if i in axes and dim != 1:
            found.append((found.pop()[0], i + 1) if open_run else (i, i + 1))
            open_run = True
        elif dim != 1:
            open_run = False
    return found


def _sum_lower(ctx: Lowering, node: Node) -> None:
    x, mean = _one(node), int(node.op == "mean")
    shape = ctx.type(x).shape
    spans = runs(shape, node.attr["axes"]) or [(len(shape), len(shape))]  # nothing to sum: a plain copy
    source = ctx.value(x)
    for i, (begin, end) in enumerate(reversed(spans)):  # from the last run on, the shape before it stays
        outer, reduce, inner = product(shape[:begin]), product(shape[begin:end]), product(shape[end:])
        shape = shape[:begin] + (1,) * (end - begin) + shape[end:]
        last = i == len(spans) - 1
        out = ctx.value(node.outputs[0]) if last else ctx.scratch(product(shape))
        ctx.step("reduce_sum", out=out, x=source, outer=outer, reduce=reduce, inner=inner, mean=mean)
        source = out


def _spread(g: Emitter, node: Node, dy: int) -> tuple[int]:
    """dy repeated along what was reduced."""
    shape = g.type(_one(node)).shape
    kept = kept_shape(shape, node.attr["axes"])
    if g.type(dy).shape != kept:
        (dy,) = g.emit("reshape", dy, shape=shape_to_attr(kept))
    return (g.emit("broadcast_to", dy, shape=shape_to_attr(shape))[0],)


def _sum_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    return _spread(g, node, *present(*douts))


def _mean_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    (dy,) = present(*douts)
    reduced = tuple(d for i, d in enumerate(g.type(_one(node)).shape) if i in node.attr["axes"])
    if any(isinstance(d, Rows) for d in reduced):
        (dy,) = g.emit("mul", dy, *g.emit("inverse_size", shape=shape_to_attr(reduced)))
    else:
        (dy,) = g.emit("affine", dy, p0=1.0 / product(reduced).const, p1=0.0)
    return _spread(g, node, dy)


def _spans(shape: Shape, axes: tuple[int, ...]) -> tuple[Affine, Affine, Affine]:
    """(outer, reduce, inner) of one run of neighbouring axes."""
    begin, end = (axes[0], axes[-1] + 1) if axes else (len(shape), len(shape))
    return product(shape[:begin]), product(shape[begin:end]), product(shape[end:])


def _max_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    axes = attrs["axes"]
    out = _shape("max")(types, attrs)
    if axes and axes != tuple(range(axes[0], axes[-1] + 1)):
        raise ShapeError(f"[max] the axes must be neighbours, got {axes}; transpose first")
    return out


def _max_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    return g.emit("max_grad", douts[0], _one(node), node.outputs[0], axes=node.attr["axes"])


def _max_lower(ctx: Lowering, node: Node) -> None:
    x = _one(node)
    outer, reduce, inner = _spans(ctx.type(x).shape, node.attr["axes"])
    ctx.step(
        "reduce_max_fwd",
        out=ctx.value(node.outputs[0]),
        x=ctx.value(x),
        outer=outer,
        reduce=reduce,
        inner=inner,
    )


def _max_grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[1], "max_grad"),)


def _max_grad_lower(ctx: Lowering, node: Node) -> None:
    dout, x, out = present(*node.inputs)
    outer, reduce, inner = _spans(ctx.type(x).shape, node.attr["axes"])
    ctx.step(
        "reduce_max_bwd",
        dx=ctx.value(node.outputs[0]),
        dout=ctx.value(dout),
        x=ctx.value(x),
        out=ctx.value(out),
        outer=outer,
        reduce=reduce,
        inner=inner,
    )


register(Rule("sum", _shape("sum"), _sum_lower, grad=_sum_grad, flops=per_element(1)))
register(Rule("mean", _shape("mean"), _sum_lower, grad=_mean_grad, flops=per_element(1)))
register(Rule("max", _max_shape, _max_lower, grad=_max_grad, flops=per_element(1)))
register(Rule("max_grad", _max_grad_shape, _max_grad_lower, flops=per_element(1)))
