# SPDX-License-Identifier: Apache-2.0
"""A plan that shows what is inside: the model's output, and the values of some of its activations.

Only for looking at a trained model; training and prediction never keep what nobody reads again.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from hotloop.compile.check import check_graph, check_plan
from hotloop.compile.fuse import fuse
from hotloop.compile.lower import lower
from hotloop.compile.memory import plan_memory
from hotloop.compile.plan import Plan, PlanSpec
from hotloop.compile.simplify import simplify
from hotloop.compile.specialize import specialize
from hotloop.graph import Graph, Node

#: What stands between layers and bends: every function of one number that `hl.nn` offers as a layer.
ACTIVATIONS = frozenset(
    {"relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "sigmoid", "softplus"}
)


def activation_nodes(graph: Graph) -> list[Node]:
    """The activations of a traced graph, in its order."""
    return [node for node in graph.nodes if node.op in ACTIVATIONS]


def inside_plan(graph: Graph, max_rows: int, dtype: Literal["float32", "float64"]) -> Plan:
    """A plan in evaluation mode whose outputs are "output" and "activation0", "activation1", ... in the order
    of `activation_nodes`."""
    shown = [(f"activation{i}", node.outputs[0]) for i, node in enumerate(activation_nodes(graph))]
    graph = dataclasses.replace(graph, outputs=(("output", graph.output), *shown))
    graph = check_graph(specialize(graph, training=False), "specialize")
    graph = check_graph(simplify(fuse(simplify(graph))), "fuse")
    return check_plan(plan_memory(lower(graph, PlanSpec("predict", max_rows, dtype), n_dropout=0)))
