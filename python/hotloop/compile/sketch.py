# SPDX-License-Identifier: Apache-2.0
"""A graph under change, as the fuse pass edits it: nodes by number, who makes a value and who reads it.

Replacing a node keeps both tables true, so that a rule sees what the rules before it have done.
"""

from __future__ import annotations

from hotloop.graph import Graph, Node, TensorType


class Sketch:
    """The nodes of a graph, None where one became part of another."""

    def __init__(self, graph: Graph) -> None:
        self.types: tuple[TensorType, ...] = graph.types
        self.nodes: list[Node | None] = list(graph.nodes)
        self.outputs = {value for _, value in graph.outputs}
        self.producer: dict[int, int] = {}
        self.readers: dict[int, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            self._enter(index, node)

    def read_by(self, value: int, op: str) -> list[int]:
        """The nodes of this op whose first input is the value."""
        result = []
        for index in self.readers.get(value, ()):
            node = self.nodes[index]
            if node is not None and node.op == op and node.inputs[0] == value:
                result.append(index)
        return result

    def only_reader(self, value: int, index: int) -> bool:
        """Whether nothing but this node needs the value."""
        return value not in self.outputs and set(self.readers.get(value, ())) <= {index}

    def depends(self, value: int, index: int) -> bool:
        """Whether the value comes from this node, by whatever way."""
        waiting, seen = [value], {value}
        while waiting:
            by = self.producer.get(waiting.pop())
            if by == index:
                return True
            made_by = None if by is None else self.nodes[by]
            more = {v for v in made_by.inputs if v is not None} - seen if made_by is not None else set()
            seen |= more
            waiting += more
        return False

    def node(self, index: int) -> Node:
        node = self.nodes[index]
        assert node is not None
        return node

    def replace(self, index: int, node: Node | None) -> None:
        old = self.node(index)
        for value in {v for v in old.inputs if v is not None}:
            self.readers[value].remove(index)
        self.nodes[index] = node
        if node is not None:
            self._enter(index, node)

    def _enter(self, index: int, node: Node) -> None:
        for value in {v for v in node.inputs if v is not None}:
            self.readers.setdefault(value, []).append(index)
        self.producer.update(dict.fromkeys(node.outputs, index))
