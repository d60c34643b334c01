# SPDX-License-Identifier: Apache-2.0
"""Dropout. The mask is never stored: the same call on dy, with the same layer, draws it again."""

from __future__ import annotations

from typing import Any

from hotloop.graph import Affine, Node, TensorType
from hotloop.ops.dims import real
from hotloop.ops.registry import Emitter, Lowering, Rule, Types, register


def _shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[0], "dropout"),)


def _grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return g.emit("dropout", douts[0], **node.attr)


def _lower(ctx: Lowering, node: Node) -> None:
    (x,) = node.inputs
    assert x is not None
    n = ctx.type(x).size
    ctx.step("dropout", y=ctx.value(node.outputs[0]), x=ctx.value(x), n=n, dropout=node.attr["layer"])


def _flops(types: Types, attrs: dict[str, Any]) -> Affine:
    assert types[0] is not None
    return types[0].size * 10  # ten rounds of Philox give eight elements: ten operations each, about


register(Rule("dropout", _shape, _lower, grad=_grad, flops=_flops))
