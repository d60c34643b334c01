# SPDX-License-Identifier: Apache-2.0
"""embedding: rows of a table picked by integer ids. The ids were checked where the data came in."""

from __future__ import annotations

from typing import Any

from hotloop.errors import DTypeError, ShapeError
from hotloop.graph import Node, TensorType
from hotloop.rules.dims import per_element, present, real, show
from hotloop.rules.registry import Emitter, Lowering, Rule, Types, register


def _ids(type_: TensorType | None) -> TensorType:
    if type_ is None or type_.dtype != "index":
        raise DTypeError(
            f"[embedding] ids must be integers, got {type_!r}; give them as an integer input of their own"
        )
    return type_


def _shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    weight, ids = real(types[0], "embedding"), _ids(types[1])
    if weight.rank != 2:
        raise ShapeError(f"[embedding] the weight must be (entries, dim), got {show(weight.shape)}")
    return (TensorType((*ids.shape, weight.shape[1])),)


def _grad(g: Emitter, node: Node, douts: tuple[int | None, ...]) -> tuple[int | None, ...]:
    weight, ids = present(*node.inputs)
    vocab = g.type(weight).shape[0]
    assert isinstance(vocab, int)
    return (*g.emit("embedding_grad", douts[0], ids, vocab=vocab), None)


def _lower(ctx: Lowering, node: Node) -> None:
    weight, ids = present(*node.inputs)
    vocab, dim = ctx.type(weight).shape
    ctx.step(
        "embedding_fwd",
        y=ctx.value(node.outputs[0]),
        weight=ctx.value(weight),
        ids=ctx.value(ids),
        n=ctx.type(ids).size,
        vocab=vocab,
        dim=dim,
    )


def _grad_shape(types: Types, attrs: dict[str, Any]) -> tuple[TensorType, ...]:
    dy, ids = real(types[0], "embedding_grad"), _ids(types[1])
    if dy.shape[:-1] != ids.shape:
        raise ShapeError(f"[embedding_grad] {show(dy.shape)} does not belong to ids {show(ids.shape)}")
    return (TensorType((attrs["vocab"], dy.shape[-1])),)


def _grad_lower(ctx: Lowering, node: Node) -> None:
    dy, ids = present(*node.inputs)
    vocab, dim = ctx.type(node.outputs[0]).shape
    ctx.step(
        "embedding_bwd",
        dweight=ctx.value(node.outputs[0]),
        dy=ctx.value(dy),
        ids=ctx.value(ids),
        n=ctx.type(ids).size,
        vocab=vocab,
        dim=dim,
    )


register(Rule("embedding", _shape, _lower, grad=_grad))
register(Rule("embedding_grad", _grad_shape, _grad_lower, flops=per_element(1)))
