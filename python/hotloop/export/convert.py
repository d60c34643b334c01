# SPDX-License-Identifier: Apache-2.0
"""From our graph to ONNX nodes: the walk over the nodes in evaluation mode, and what converters ask of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.compile.simplify import simplify
from hotloop.compile.specialize import specialize
from hotloop.errors import GraphError
from hotloop.export.builder import BATCH, Border, Builder
from hotloop.export.ops import CONVERTERS, why_not
from hotloop.graph import Graph, Node, Rows, TensorType
from hotloop.rules.dims import Shape


class Conversion:
    """One graph on its way into a builder. ``names``: our value to the name of the ONNX value."""

    def __init__(self, builder: Builder, graph: Graph, names: dict[int, str]) -> None:
        self.builder = builder
        self.graph = graph
        self.names = names
        self.op = builder.op
        self.constant = builder.constant
        self._rows: str | None = None

    def type(self, value: int) -> TensorType:
        return self.graph.types[value]

    def name(self, value: int | None) -> str:
        assert value is not None  # an operand that the op's rule requires
        return self.names[value]

    def first(self, node: Node) -> str:
        """The name of the node's first operand."""
        return self.name(node.inputs[0])

    def columns(self, value: int | None, n_axes: int) -> tuple[int, ...]:
        """The last dimensions of a value, none of which is the batch."""
        assert value is not None
        return tuple(d for d in self.type(value).shape[-n_axes:] if isinstance(d, int))

    def affine(self, x: str, scale: float, shift: float) -> str:
        """``scale * x + shift``, without what does nothing."""
        out = x if scale == 1.0 else self.op("Mul", x, self.constant(scale))
        return out if shift == 0.0 else self.op("Add", out, self.constant(shift))

    def shape(self, dims: Shape) -> str:
        """A shape as an int64 value; a dimension that follows the batch is counted when the model runs."""
        if not any(isinstance(d, Rows) for d in dims):
            return self.constant([d for d in dims if isinstance(d, int)], np.int64)
        parts = [
            self._rows_times(d.per_row) if isinstance(d, Rows) else self.constant([d], np.int64) for d in dims
        ]
        return self.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def _rows_times(self, per_row: int) -> str:
        if self._rows is None:
            value, axis = next(
                (value, axis)
                for _, value in self.graph.inputs
                for axis, dim in enumerate(self.type(value).shape)
                if dim == Rows()
            )
            self._rows = self.op("Shape", self.names[value], start=axis, end=axis + 1)
        return self._rows if per_row == 1 else self.op("Mul", self._rows, self.constant([per_row], np.int64))


def evaluated(graph: Graph) -> Graph:
    """The graph in evaluation mode, as predictions run it."""
    return simplify(specialize(graph, training=False))


def add_graph(
    builder: Builder, graph: Graph, tensors: Mapping[str, NDArray[Any]], inputs: Mapping[str, str]
) -> str:
    """Append an evaluated graph; ``inputs``: our input to the ONNX value that feeds it. The output's name."""
    names = {value: inputs[name] for name, value in graph.inputs}
    read = {value for node in graph.nodes for value in node.inputs} | {graph.output}
    for name, value in (*graph.parameters, *graph.states):
        if value in read:
            names[value] = builder.weight(name, tensors[name])
    conversion = Conversion(builder, graph, names)
    for node in graph.nodes:
        convert = CONVERTERS.get(node.op)
        if convert is None:
            reason = why_not(node.op) or "has no converter yet"
            raise GraphError(f"[export_onnx] the op {node.op!r} cannot be exported: it {reason}")
        names[node.outputs[0]] = convert(conversion, node)
    return names[graph.output]


def dims_of(type_: TensorType) -> tuple[int | str, ...]:
    """A shape as ONNX writes it: the batch has a name, multiples of it are unknown."""
    return tuple(
        d if isinstance(d, int) else BATCH if d.per_row == 1 else f"{d.per_row}*{BATCH}" for d in type_.shape
    )


def border_of(name: str, type_: TensorType) -> Border:
    """An input or output as ONNX describes it; ids are int64."""
    return Border(name, "int64" if type_.dtype == "index" else "float32", dims_of(type_))


def nbytes(builder: Builder) -> int:
    """Bytes of all stored numbers."""
    return sum(math.prod(a.shape) * a.itemsize for a in builder.constants.values())
