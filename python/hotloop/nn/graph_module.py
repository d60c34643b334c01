# SPDX-License-Identifier: Apache-2.0
"""GraphModule: a model made from a stored graph, without the code that described it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Graph
from hotloop.nn.base import Module
from hotloop.nn.parameter import Array, Buffer, Parameter
from hotloop.trace import Tensor, active_tracer


class GraphModule(Module):
    """Runs a graph as a module: tracing it, alone or inside another module, records the graph's nodes again.

    Args:
        graph: as `hotloop.trace.trace` gave it.
        tensors: a state dict. Its order is kept; what the graph does not read stays as a buffer.
        aliases: further names of shared tensors, each with its first name (`Module.tied_names`).

    Raises:
        ShapeError: a tensor of the graph is missing or has another shape.
    """

    def __init__(
        self, graph: Graph, tensors: Mapping[str, Array], *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.graph = graph
        self._names = tuple(tensors)
        aliases = aliases or {}
        parameters, states = dict(graph.parameters), dict(graph.states)
        for name, value in (parameters | states).items():
            shape = graph.types[value].shape
            if name not in tensors or np.shape(tensors[name]) != shape:
                got = f"shape {np.shape(tensors[name])}" if name in tensors else "nothing"
                raise ShapeError(f"[GraphModule] tensor {name!r} must have shape {shape}, got {got}")
        for name, array in tensors.items():
            if name in parameters:
                self._parameters[name] = Parameter(np.asarray(array))
            elif name not in aliases:
                self._buffers[name] = Buffer(np.asarray(array))
        for name in tensors:
            if name in aliases:
                first = aliases[name]
                table: dict[str, Any] = self._parameters if first in self._parameters else self._buffers
                table[name] = table[first]

    def _own(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        for name in self._names:
            yield name, self._parameters[name] if name in self._parameters else self._buffers[name]

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        """Takes the graph's inputs by position or by name (one input: any name)."""
        graph, tracer = self.graph, active_tracer()
        assert tracer is not None  # a module is called in a trace only
        given = dict(zip((name for name, _ in graph.inputs), args, strict=False)) | named
        if len(graph.inputs) == 1 and len(given) == 1:
            given = {graph.inputs[0][0]: next(iter(given.values()))}
        expected = {name: graph.types[value] for name, value in graph.inputs}
        if len(args) > len(expected) or given.keys() != expected.keys():
            raise GraphError(
                f"[GraphModule] takes inputs {', '.join(expected)}, got {', '.join(given) or 'none'}"
            )
        values: dict[int | None, int | None] = {None: None}
        for name, value in graph.inputs:
            tensor = tracer.lift(given[name])
            if tracer.type(tensor.value) != expected[name]:
                raise ShapeError(
                    f"[GraphModule] input {name!r} must be {expected[name]!r} (B: the batch), "
                    f"got {tracer.type(tensor.value)!r}"
                )
            values[value] = tensor.value
        stored: dict[int, Parameter | Buffer] = {v: self._parameters[n] for n, v in graph.parameters}
        stored |= {v: self._buffers[n] for n, v in graph.states}
        for node in graph.nodes:
            for v in node.inputs:
                if v in stored and v not in values:
                    values[v] = stored[v].symbol().value
            attrs = node.attr
            if node.op == "dropout":  # numbered anew, in the same order
                attrs["layer"] = tracer.next_dropout()
            outputs = tracer.emit(node.op, *(values[v] for v in node.inputs), **attrs)
            values.update(zip(node.outputs, outputs, strict=True))
        if graph.output in stored and graph.output not in values:
            values[graph.output] = stored[graph.output].symbol().value
        output = values[graph.output]
        assert output is not None
        return Tensor(tracer, output)
