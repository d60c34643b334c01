# SPDX-License-Identifier: Apache-2.0
"""Fix the mode: a traced graph says `dropout` and `batch_norm`; training and evaluation mean different ops.

In evaluation dropout is nothing and batch_norm reads its running statistics; in training batch_norm takes
the batch's statistics, saves them for the gradient, and updates the running ones in place. A batch_norm that
is frozen, weight and bias, is in evaluation throughout: what is frozen computes the same function (Keras's
rule; torch would go on moving the statistics).
"""

from __future__ import annotations

from collections.abc import Collection

from hotloop.compile.rewrite import Rewrite, Rewriter, rewrite
from hotloop.graph import Graph, Node


def _nothing(g: Rewriter, node: Node) -> tuple[int, ...]:
    value = node.inputs[0]
    assert value is not None
    return (value,)


def _batch_norm_eval(g: Rewriter, node: Node) -> tuple[int, ...]:
    return g.emit("batch_norm_eval", *node.inputs, eps=node.attr["eps"])


def _batch_norm_train(g: Rewriter, node: Node) -> tuple[int, ...]:
    # outputs y, mean, rstd: the last two are the gradient's business
    return g.emit("batch_norm_train", *node.inputs, **node.attr)[:1]


EVALUATION: dict[str, list[Rewrite]] = {"batch_norm": [_batch_norm_eval], "dropout": [_nothing]}


def specialize(graph: Graph, training: bool, frozen: Collection[str] = ()) -> Graph:
    """The graph of one mode; ``frozen``: names of the parameters that a training plan leaves alone."""
    if not training:
        return rewrite(graph, EVALUATION)
    still = {value for name, value in graph.parameters if name in frozen}

    def batch_norm(g: Rewriter, node: Node) -> tuple[int, ...]:
        return (_batch_norm_eval if is_frozen_norm(node, still) else _batch_norm_train)(g, node)

    return rewrite(graph, {"batch_norm": [batch_norm]})


def is_frozen_norm(node: Node, frozen: Collection[int]) -> bool:
    """Whether a batch_norm has weight or bias, and all it has are among the ``frozen`` values. (One without
    either has nothing to freeze and follows the batch.)"""
    affine = [value for value in node.inputs[1:3] if value is not None]
    return bool(affine) and all(value in frozen for value in affine)
