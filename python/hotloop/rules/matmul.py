# SPDX-License-Identifier: Apache-2.0
"""Products of matrices. All are the one kernel; what differs is how its two operands are read.

    linear              y  = x W^T + b     W in panels, because its rows run along k
    linear_grad_input   dx = dy W          W as it lies
    linear_grad_weight  dW = dy^T x        dy read by columns, x as it lies; db is the row sum of dy^T
    matmul              y  = a b           the same product as linear_grad_input, with a gradient

Leading dimensions of the left operand are rows: x is (..., in), flattened to (m, in).
"""

from __future__ import annotations

from typing import Any

from hotloop.errors import ShapeError
from hotloop.graph import Affine, Node, Rows, TensorType, product
from hotloop.rules.dims import Shape, expect_shape, present, real, show, times
from hotloop.rules.registry import Emitter, Lowering, Rule, ShapeRule, Types, register

Gradients = tuple["int | None", ...]

#: kPanel of args.h.
PANEL = 16
# A row of B of 1024 floats is a page: a register tile that walks down k touches a new page every step. Copying
# B into panels costs one pass, which ten tiles of six rows pay back: a quarter of the time with AVX2, nothing
# either way with AVX-512. Up to half a page reading in place is as fast.
PACK_MIN_COLS = 1024
PACK_MIN_ROWS = 64
# A weight gradient with few elements is one or two chunks of work however long the batch. Batches longer than
# this are summed in parts of as many rows, for as many threads; a part then costs a 2048th of its
# multiply-adds in bytes written and read once more. From 256 x 256 elements on there are chunks enough.
PART_ROWS = 1024
PART_MOST_ELEMENTS = 256 * 256


def _matrix(type_: TensorType | None, where: str) -> tuple[int, int]:
    shape = real(type_, where).shape
    if len(shape) == 2 and isinstance(shape[0], int) and isinstance(shape[1], int):
        return shape[0], shape[1]
    raise ShapeError(
        f"[{where}] the right operand must be a matrix without the batch, got {show(shape)}; "
        "products of two batched values are not available"
    )


def _leading(x: TensorType, features: int, where: str) -> Shape:
    """The dimensions left of the features, once the features are what the matrix takes."""
    if not x.shape or x.shape[-1] != features:
        raise ShapeError(
            f"[{where}] the last dimension must be {features}, got {show(x.shape)}; "
            "reshape the input or change in_features"
        )
    return x.shape[:-1]


def _linear_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    x = real(types[0], "linear")
    n, k = _matrix(types[1], "linear")
    expect_shape(types[2], (n,), "linear")
    return (TensorType((*_leading(x, k, "linear"), n)),)


def _linear_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    (dy,) = present(*douts)
    x, weight, bias = node.inputs
    (dx,) = g.emit("linear_grad_input", dy, weight)
    (dw,) = g.emit("linear_grad_weight", dy, x, bias=False)
    db = None
    if bias is not None:
        (db,) = g.emit("sum", dy, axes=tuple(range(g.type(dy).rank - 1)), keepdim=False)
    return dx, dw, db


def lower_linear(ctx: Lowering, x: int, weight: int, bias: int | None, out: int, **epilogue: Any) -> None:
    """``out (m, n) = x (m, k) weight (n, k)^T + bias (n)``, graph values all.

    ``epilogue``: fields of the kernel that follow the product (saved, gate, residual, activation, dropout, p0, p1).
    """
    n, k = _matrix(ctx.type(weight), "linear")
    operand: dict[str, Any] = {"b": ctx.value(weight), "b_stride_k": 1, "b_stride_n": k}
    if ctx.packs:
        operand = {"b": ctx.scratch(-(-n // PANEL) * PANEL * k), "b_packed": 1}
        ctx.step("pack_panels", out=operand["b"], x=ctx.value(weight), k=k, n=n, stride_k=1, stride_n=k)
    _matmul_step(
        ctx,
        out=ctx.value(out),
        a=ctx.value(x),
        bias=None if bias is None else ctx.value(bias),
        m=product(ctx.type(x).shape[:-1]),
        n=n,
        k=k,
        a_stride_m=k,
        a_stride_k=1,
        dropout_row=ctx.type(out).size.per_row,
        **operand,
        **epilogue,
    )


def _matmul_step(ctx: Lowering, **fields: Any) -> None:
    """One matmul with a dense output; what is not given is absent."""
    absent: dict[str, Any] = {
        "saved": None,
        "row_sum": None,
        "bias": None,
        "gate": None,
        "residual": None,
        "b_stride_k": 0,
        "b_stride_n": 1,
        "out_stride": fields["n"],
        "dropout_row": 0,
        "b_packed": 0,
        "activation": -1,
        "dropout": -1,
        "alpha": 1.0,
        "beta": 0.0,
        "p0": 0.0,
        "p1": 0.0,
    }
    ctx.step("matmul", **(absent | fields))


def _row_major_b(ctx: Lowering, b: Any, *, m: Affine, n: int, k: Affine) -> dict[str, Any]:
    """B (k, n) as it lies, or in panels where that is worth the copy. The bits are the same."""
    if not ctx.packs or n < PACK_MIN_COLS or m.at(ctx.max_rows) < PACK_MIN_ROWS:
        return {"b": b, "b_stride_k": n, "b_packed": 0}
    panels = ctx.scratch(k * (-(-n // PANEL) * PANEL))
    ctx.step("pack_panels", out=panels, x=b, k=k, n=n, stride_k=n, stride_n=1)
    return {"b": panels, "b_packed": 1}


def _linear_lower(ctx: Lowering, node: Node) -> None:
    x, weight = present(*node.inputs[:2])
    lower_linear(ctx, x, weight, node.inputs[2], node.outputs[0])


def _product_shape(name: str) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        a = real(types[0], name)
        k, n = _matrix(types[1], name)
        return (TensorType((*_leading(a, k, name), n)),)

    return shape


def lower_product(ctx: Lowering, a: int, b: int, out: int, **epilogue: Any) -> None:
    """``out (..., n) = a (..., k) b (k, n)``, graph values all; ``epilogue`` as in `lower_linear`."""
    k, n = _matrix(ctx.type(b), "matmul")
    m = product(ctx.type(a).shape[:-1])
    operand = _row_major_b(ctx, ctx.value(b), m=m, n=n, k=Affine(0, k))
    _matmul_step(
        ctx,
        out=ctx.value(out),
        a=ctx.value(a),
        m=m,
        n=n,
        k=k,
        a_stride_m=k,
        a_stride_k=1,
        dropout_row=ctx.type(out).size.per_row,
        **operand,
        **epilogue,
    )


def _product_lower(ctx: Lowering, node: Node) -> None:
    a, b = present(*node.inputs)
    lower_product(ctx, a, b, node.outputs[0])


def _matmul_grad(g: Emitter, node: Node, douts: Gradients) -> Gradients:
    # y = a b: da = dy b^T is a linear layer with weight b; db = a^T dy is its weight gradient
    a, b = node.inputs
    return (*g.emit("linear", douts[0], b, None), *g.emit("linear_grad_weight", a, douts[0], bias=False))


def _grad_weight_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    dy, x = real(types[0], "linear_grad_weight"), real(types[1], "linear_grad_weight")
    if not dy.shape or not x.shape or dy.shape[:-1] != x.shape[:-1]:
        raise ShapeError(f"[linear_grad_weight] rows differ, got {show(dy.shape)} and {show(x.shape)}")
    if isinstance(dy.shape[-1], Rows) or isinstance(x.shape[-1], Rows):
        raise ShapeError(
            f"[linear_grad_weight] features follow the batch in {show(dy.shape)}, {show(x.shape)}"
        )
    dw = TensorType((dy.shape[-1], x.shape[-1]))
    return (dw, TensorType((dy.shape[-1],))) if attrs.get("bias") else (dw,)


def _grad_weight_lower(ctx: Lowering, node: Node) -> None:
    """dW (out, in) = dy (rows, out)^T x (rows, in);  db (out) = sum over rows of dy"""
    dy, x = present(*node.inputs)
    rows = product(ctx.type(x).shape[:-1])
    m, n = (int(d) for d in ctx.type(node.outputs[0]).shape)  # type: ignore[arg-type]
    db = node.outputs[1] if len(node.outputs) > 1 and ctx.is_used(node.outputs[1]) else None
    out, row_sum = ctx.value(node.outputs[0]), None if db is None else ctx.value(db)
    parts = -(-rows.at(ctx.max_rows) // PART_ROWS)
    if ctx.packs and parts > 1 and m * n <= PART_MOST_ELEMENTS:
        sums = ctx.scratch(parts * m * n)
        row_sums = None if row_sum is None else ctx.scratch(parts * m)
        ctx.step(
            "matmul_parts", out=sums, row_sum=row_sums, a=ctx.value(dy), b=ctx.value(x),
            parts=parts, m=m, n=n, k=rows, depth=PART_ROWS,
        )  # fmt: skip
        if row_sum is not None:
            ctx.step("reduce_sum", out=row_sum, x=row_sums, outer=1, reduce=parts, inner=m, mean=0)
        ctx.step("reduce_sum", out=out, x=sums, outer=1, reduce=parts, inner=m * n, mean=0)
        return
    operand = _row_major_b(ctx, ctx.value(x), m=Affine(0, m), n=n, k=rows)
    _matmul_step(
        ctx,
        out=out,
        row_sum=row_sum,
        a=ctx.value(dy),
        m=m,
        n=n,
        k=rows,
        a_stride_m=1,
        a_stride_k=m,
        **operand,
    )


def _product_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    # every element of the left operand meets every column of the result once: 2 m k n
    k, n = _matrix(types[1], "matmul")
    return product(real(types[0], "matmul").shape[:-1]) * (2 * k * n)


def _grad_weight_flops(types: Types, attrs: dict[str, Any]) -> Affine:
    dy, x = real(types[0], "linear_grad_weight"), real(types[1], "linear_grad_weight")
    return times(dy.size, x.shape[-1]) * 2


register(Rule("linear", _linear_shape, _linear_lower, grad=_linear_grad, flops=_product_flops))
register(Rule("matmul", _product_shape("matmul"), _product_lower, grad=_matmul_grad, flops=_product_flops))
register(Rule("linear_grad_input", _product_shape("linear_grad_input"), _product_lower, flops=_product_flops))
register(Rule("linear_grad_weight", _grad_weight_shape, _grad_weight_lower, flops=_grad_weight_flops))
