# SPDX-License-Identifier: Apache-2.0
"""The graph: what a model computes, as plain immutable data.

Values are numbered; each is written by one node (or is an input, parameter or state) and never changes.
Everything here is hashable, so that a graph is a cache key, and turns into JSON, so that it fits in a file.
This module imports nothing of ours.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

Attr = Union[None, bool, int, float, str, tuple["Attr", ...]]
# real: the plan's scalar type;  index: int32;  double: sums that stay float64 whatever the scalar type
ElementType = Literal["real", "index", "double"]


@dataclass(frozen=True)
class Rows:
    """A dimension of ``per_row`` times the number of rows in the batch."""

    per_row: int = 1

    def __mul__(self, factor: int) -> Rows:
        return Rows(self.per_row * factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return "B" if self.per_row == 1 else f"{self.per_row}B"


Dim = Union[int, Rows]


@dataclass(frozen=True)
class Affine:
    """The number ``per_row * rows + const``: a size or stride that follows the batch."""

    per_row: int = 0
    const: int = 0

    def at(self, rows: int) -> int:
        return self.per_row * rows + self.const

    def __mul__(self, factor: int) -> Affine:
        return Affine(self.per_row * factor, self.const * factor)

    def __repr__(self) -> str:
        if not self.per_row:
            return str(self.const)
        return f"{self.per_row}B" + (f"+{self.const}" if self.const else "")


def product(dims: Iterable[Dim]) -> Affine:
    """The product of dimensions, of which at most one follows the batch (else `ValueError`)."""
    dims = tuple(dims)
    const = math.prod(d for d in dims if isinstance(d, int))
    rows = [d for d in dims if isinstance(d, Rows)]
    if len(rows) > 1:
        raise ValueError(f"[graph] a shape may hold the batch once, got {dims}")
    return Affine(rows[0].per_row * const, 0) if rows else Affine(0, const)


@dataclass(frozen=True)
class TensorType:
    """Shape and element type of one value."""

    shape: tuple[Dim, ...]
    dtype: ElementType = "real"

    @property
    def size(self) -> Affine:
        """Number of elements."""
        return product(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        prefix = "" if self.dtype == "real" else self.dtype[0]
        return f"{prefix}[{', '.join(map(repr, self.shape))}]"


@dataclass(frozen=True)
class Node:
    """One operation: ``outputs = op(inputs; attrs)``. Absent optional inputs are None."""

    op: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()

    @property
    def attr(self) -> dict[str, Any]:
        return dict(self.attrs)


NamedValues = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can run, and the names of the values at the border."""

    types: tuple[TensorType, ...]
    nodes: tuple[Node, ...]
    inputs: NamedValues
    parameters: NamedValues
    states: NamedValues
    outputs: NamedValues

    @property
    def output(self) -> int:
        """The one output of a traced model."""
        return self.outputs[0][1]


def make_attrs(attrs: Mapping[str, Attr]) -> tuple[tuple[str, Attr], ...]:
    return tuple(sorted(attrs.items()))


def with_dropout(graph: Graph, change: Callable[[dict[str, Any]], Mapping[str, Attr]]) -> Graph:
    """The graph with other attributes of its dropout nodes: ``change`` makes them from those there are."""
    if not any(node.op == "dropout" for node in graph.nodes):
        return graph
    nodes = (
        dataclasses.replace(node, attrs=make_attrs(change(node.attr))) if node.op == "dropout" else node
        for node in graph.nodes
    )
    return dataclasses.replace(graph, nodes=tuple(nodes))


def unnamed(graph: Graph) -> Graph:
    """Without the names of its dropout layers, which decide nothing."""
    return with_dropout(graph, lambda attr: {key: value for key, value in attr.items() if key != "name"})


def graph_to_json(graph: Graph) -> str:
    """The graph as JSON text; `graph_from_json` gives an equal graph back."""
    return json.dumps(_encode(graph), separators=(",", ":"))


def graph_from_json(text: str) -> Graph:
    """Raises `ValueError` (or `KeyError`, `TypeError`) for text that no graph gave."""
    data = json.loads(text)

    def named(key: str) -> NamedValues:
        return tuple((str(n), int(i)) for n, i in data[key])

    return Graph(
        types=tuple(TensorType(tuple(_dim(d) for d in t["shape"]), t["dtype"]) for t in data["types"]),
        nodes=tuple(
            Node(n["op"], _tuples(n["inputs"]), _tuples(n["outputs"]), _tuples(n["attrs"]))
            for n in data["nodes"]
        ),
        inputs=named("inputs"),
        parameters=named("parameters"),
        states=named("states"),
        outputs=named("outputs"),
    )


def _encode(value: Any) -> Any:
    if isinstance(value, Rows):
        return {"per_row": value.per_row}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return value


def _dim(value: Any) -> Dim:
    return Rows(int(value["per_row"])) if isinstance(value, dict) else int(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
