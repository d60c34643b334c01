# SPDX-License-Identifier: Apache-2.0
"""Fix the mode: a traced graph says `dropout` and `batch_norm`; training and evaluation mean different ops.

In evaluation dropout is nothing and batch_norm reads its running statistics; in training batch_norm takes
the batch's statistics, saves them for the gradient, and updates the running ones in place.
"""

from __future__ import annotations

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


TRAINING: dict[str, list[Rewrite]] = {"batch_norm": [_batch_norm_train]}
EVALUATION: dict[str, list[Rewrite]] = {"batch_norm": [_batch_norm_eval], "dropout": [_nothing]}


def specialize(graph: Graph, training: bool) -> Graph:
    """The graph of one mode."""
    return rewrite(graph, TRAINING if training else EVALUATION)
