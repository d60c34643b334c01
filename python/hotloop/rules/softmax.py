# SPDX-License-Identifier: Apache-2.0
"""softmax and log_softmax over the last axis; other axes are transposed to it by whoever traces."""

from __future__ import annotations

from typing import Any

from hotloop.errors import ShapeError
from hotloop.graph import Dim, Node, Rows, TensorType, product
from hotloop.rules.dims import expect_shape, per_element, present, real, show
from hotloop.rules.elementwise import TRANSCENDENTAL
from hotloop.rules.registry import Emitter, GradRule, Lowering, LowerRule, Rule, ShapeRule, Types, register


def _last(x: TensorType, where: str) -> Dim:
    if not x.shape or isinstance(x.shape[-1], Rows):
        raise ShapeError(f"[{where}] the last axis must be a fixed number of values, got {show(x.shape)}")
    return x.shape[-1]


def _shape(name: str) -> ShapeRule:
    def shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
        x = real(types[0], name)
        _last(x, name)
        if name.endswith("_grad"):
            expect_shape(types[1], x.shape, name)
        return (x,)

    return shape


def _grad(name: str) -> GradRule:
    def grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return g.emit(f"{name}_grad", douts[0], node.outputs[0])

    return grad


def _lower(name: str) -> LowerRule:
    def lower(ctx: Lowering, node: Node) -> None:
        (first,) = present(node.inputs[0])
        type_ = ctx.type(first)
        rows, cols = product(type_.shape[:-1]), type_.shape[-1]
        out = ctx.value(node.outputs[0])
        if node.op == name:
            ctx.step(f"{name}_fwd", y=out, x=ctx.value(first), rows=rows, cols=cols)
            return
        (saved,) = present(node.inputs[1])
        ctx.step(f"{name}_bwd", dx=out, dy=ctx.value(first), y=ctx.value(saved), rows=rows, cols=cols)

    return lower


for _name in ("softmax", "log_softmax"):
    register(
        Rule(_name, _shape(_name), _lower(_name), grad=_grad(_name), flops=per_element(TRANSCENDENTAL + 4))
    )
    register(
        Rule(f"{_name}_grad", _shape(f"{_name}_grad"), _lower(_name), flops=per_element(TRANSCENDENTAL + 4))
    )
