# SPDX-License-Identifier: Apache-2.0
"""Where a stored graph ends in a head: its last linear layer, and the graph without it."""

from __future__ import annotations

import dataclasses

from hotloop.errors import GraphError
from hotloop.graph import Graph, Node

_LINEAR = ("linear", "matmul")


def cut_head(graph: Graph) -> tuple[Graph, str]:
    """The graph up to the input of its last linear layer, without what only the rest needs, and the name of
    the module that this layer was.

    Raises `GraphError` if there is no such layer, if another way leads around it to the output, or if its
    weight is shared with what stays.
    """
    names = {value: name for name, value in graph.parameters}
    layers = [n for n in graph.nodes if n.op in _LINEAR and n.inputs[1] in names]
    if not layers:
        raise GraphError(
            "[replace_head] the graph has no linear layer that could be its head; "
            "describe a new model, and take over what fits by load_state_dict(state, strict=False)"
        )
    head = layers[-1]
    weight = names[_value(head.inputs[1])]
    _, past = _walk_back(graph, graph.output, until=head)
    around = [name for name, value in graph.inputs if value in past]
    if around or head.outputs[0] not in past:
        way = f"input {around[0]!r} reaches the output" if around else "it does not reach the output"
        raise GraphError(
            f"[replace_head] cannot cut before the last linear layer, {weight!r}: {way} by a way around it; "
            "describe a new model, and take over what fits by load_state_dict(state, strict=False)"
        )
    kept, used = _walk_back(graph, _value(head.inputs[0]))
    shared = [names[v] for v in _read(head) if v in names and v in used]
    if shared:
        raise GraphError(
            f"[replace_head] cannot cut before {weight!r}: its parameter {shared[0]!r} is also used before it"
        )
    trunk = dataclasses.replace(
        graph,
        nodes=tuple(node for index, node in enumerate(graph.nodes) if index in kept),
        parameters=tuple(named for named in graph.parameters if named[1] in used),
        states=tuple(named for named in graph.states if named[1] in used),
        outputs=(("output", _value(head.inputs[0])),),
    )
    return trunk, weight.rpartition(".")[0] or "head"


def _walk_back(graph: Graph, value: int, until: Node | None = None) -> tuple[set[int], set[int]]:
    """The numbers of the nodes that a value needs, and all values that they and it are; no node beyond
    ``until`` is looked at."""
    nodes: set[int] = set()
    values = {value}
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if any(v in values for v in node.outputs):
            nodes.add(index)
            if node is not until:
                values.update(_read(node))
    return nodes, values


def _read(node: Node) -> list[int]:
    return [value for value in node.inputs if value is not None]


def _value(value: int | None) -> int:
    assert value is not None  # a linear layer has an input and a weight
    return value
