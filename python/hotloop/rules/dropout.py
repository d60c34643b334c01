# SPDX-License-Identifier: Apache-2.0
"""Dropout. The mask is never stored: the same call on dy, with the same layer, draws it again."""

from __future__ import annotations

from typing import Any

from hotloop.graph import Node, TensorType
from hotloop.rules.dims import per_element, present, real
from hotloop.rules.registry import Emitter, Lowering, Rule, Types, register

# ten rounds of Philox, about eight operations each, give eight elements
PHILOX = 10


def _shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    return (real(types[0], "dropout"),)


def _grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return g.emit("dropout", douts[0], **node.attr)


def _lower(ctx: Lowering, node: Node) -> None:
    (x,) = present(*node.inputs)
    n = ctx.type(x).size
    layer = node.attr["layer"]
    ctx.step(
        "dropout", y=ctx.value(node.outputs[0]), x=ctx.value(x), n=n, dropout=layer, dropout_row=n.per_row
    )


register(Rule("dropout", _shape, _lower, grad=_grad, flops=per_element(PHILOX)))
