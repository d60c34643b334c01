# SPDX-License-Identifier: Apache-2.0
"""What the passes share: one forward sweep that applies a table of rules, dead-code removal, and order.

Values keep their numbers through every pass; new ones are appended. So a pass only says what it replaces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from hotloop.graph import Graph, Node
from hotloop.rules.registry import GraphBuilder


class Rewriter(GraphBuilder):
    """A builder that knows which node made a value, so that rules can look at their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self._producers: dict[int, Node] = {}

    @classmethod
    def around(cls, graph: Graph) -> Rewriter:
        """A rewriter with the values and borders of a graph, and none of its nodes yet."""
        rewriter = cls.extend(graph)
        rewriter.nodes = []
        return rewriter

    def producer(self, value: int | None) -> Node | None:
        """The node that wrote the value; None for inputs, parameters and states."""
        return None if value is None else self._producers.get(value)

    def append(self, node: Node) -> None:
        """Take a node over as it is."""
        self.nodes.append(node)
        for value in node.outputs:
            self._producers[value] = node

    def emit(self, op: str, *inputs: int | None, **attrs: object) -> tuple[int, ...]:
        outputs = super().emit(op, *inputs, **attrs)  # type: ignore[arg-type]
        self.append(self.nodes.pop())
        return outputs


# (rewriter, node) -> values that stand for the node's outputs from now on; None: leave the node as it is
Rewrite = Callable[[Rewriter, Node], "tuple[int, ...] | None"]


def rewrite(graph: Graph, rules: Mapping[str, Sequence[Rewrite]]) -> Graph:
    """One sweep in order. A rule sees inputs that were rewritten already, so chains collapse in one go."""
    rewriter = Rewriter.around(graph)
    same: dict[int, int] = {}
    for node in graph.nodes:
        node = with_inputs(node, same)
        for rule in rules.get(node.op, ()):
            values = rule(rewriter, node)
            if values is not None:
                same.update(zip(node.outputs, values, strict=True))
                break
        else:
            rewriter.append(node)
    return rewriter.build([(name, same.get(value, value)) for name, value in graph.outputs])


def with_inputs(node: Node, same: Mapping[int, int]) -> Node:
    """The node, reading ``same[v]`` in place of ``v``."""
    if not any(value in same for value in node.inputs if value is not None):
        return node
    inputs = tuple(None if value is None else same.get(value, value) for value in node.inputs)
    return dataclasses.replace(node, inputs=inputs)


def live_nodes(nodes: Sequence[Node], roots: Iterable[int], *, effects: bool = True) -> list[bool]:
    """Which nodes the values in ``roots`` need. Nodes without outputs act on the side: with ``effects``,
    they and what they read are needed too."""
    needed = set(roots)
    live = [False] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if (effects and not node.outputs) or any(value in needed for value in node.outputs):
            live[index] = True
            needed.update(value for value in node.inputs if value is not None)
    return live


def drop_dead(graph: Graph) -> Graph:
    """Without the nodes that neither an output nor a side effect needs."""
    live = live_nodes(graph.nodes, (value for _, value in graph.outputs))
    if all(live):
        return graph
    return dataclasses.replace(
        graph, nodes=tuple(node for node, keep in zip(graph.nodes, live, strict=True) if keep)
    )


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes such that each comes after what it reads, otherwise as they stood."""
    producer = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    placed = [False] * len(nodes)
    result: list[Node] = []
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            index = stack[-1]
            waiting = [
                producer[value]
                for value in nodes[index].inputs
                if value in producer and not placed[producer[value]]
            ]
            if placed[index] or not waiting:
                stack.pop()
                if not placed[index]:
                    placed[index] = True
                    result.append(nodes[index])
            else:
                stack.extend(reversed(waiting))
    return result
