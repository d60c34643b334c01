# SPDX-License-Identifier: Apache-2.0
"""GraphModule: a model made from a stored graph, without the code that described it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Graph, with_dropout
from hotloop.nn.base import Module
from hotloop.nn.dropout import Dropout
from hotloop.nn.head import cut_head
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
        self._head: str | None = None  # the module that goes on from the graph's output, if any
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
            if node.op == "dropout":
                if attrs["p"] == 0.0:
                    values[node.outputs[0]] = values[node.inputs[0]]
                    continue
                # numbered anew, in the same order, and named from the model that holds this one
                path = (tracer.path(self), _dropout_name(attrs))
                attrs |= {"layer": tracer.next_dropout(), "name": ".".join(filter(None, path))}
            outputs = tracer.emit(node.op, *(values[v] for v in node.inputs), **attrs)
            values.update(zip(node.outputs, outputs, strict=True))
        if graph.output in stored and graph.output not in values:
            values[graph.output] = stored[graph.output].symbol().value
        output = values[graph.output]
        assert output is not None
        result = Tensor(tracer, output)
        return result if self._head is None else self._modules[self._head](result)

    def replace_head(self, head: Module) -> GraphModule:
        """Cuts the graph before its last linear layer, and puts ``head`` in place of what followed.

        The new module has the name of the layer that it replaces, so that "4.weight" stays "4.weight" if both
        are Linear; all other names stay, and so do all other values, whether frozen or not. The parameters of
        ``head`` are drawn from the trainer's seed at its next fit, unless they have values. Returns itself.

        Raises `GraphError` where the graph cannot be cut: it has no linear layer, its output depends on what
        comes before it by another way as well (a sum around it), or the layer shares its weight with another.
        """
        if not isinstance(head, Module):
            raise GraphError(f"[replace_head] the head must be a Module, got {type(head).__name__}")
        if self._head is None:
            trunk, name = cut_head(self.graph)
            kept = {name for name, _ in (*trunk.parameters, *trunk.states)}
            gone = {name for name, _ in (*self.graph.parameters, *self.graph.states)} - kept
            # with a norm's running statistics goes the count of its batches
            parts = {name.rpartition(".")[0] for name in gone}
            table: dict[str, Any]
            for table in (self._parameters, self._buffers):
                for key in [k for k in table if k not in kept and k.rpartition(".")[0] in parts]:
                    del table[key]
            self._names = tuple(n for n in self._names if n in self._parameters or n in self._buffers)
            self._head, self.graph = name, trunk
        self.register_module(self._head, head)
        return self

    def _holds_head(self) -> bool:
        return True

    def _own_dropout(self) -> Iterator[tuple[str, Any]]:
        names = [_dropout_name(node.attr) for node in self.graph.nodes if node.op == "dropout"]
        return ((name, _StoredDropout(self, name)) for name in dict.fromkeys(names))


class _StoredDropout:
    """A dropout layer of a stored graph, as `Module.set_dropout` wants it."""

    check = staticmethod(Dropout.check)

    def __init__(self, module: GraphModule, name: str) -> None:
        self._module, self._name = module, name

    @property
    def p(self) -> float:
        """The drop probability."""
        attrs = (node.attr for node in self._module.graph.nodes if node.op == "dropout")
        return next(float(attr["p"]) for attr in attrs if _dropout_name(attr) == self._name)

    @p.setter
    def p(self, value: float) -> None:
        def change(attr: dict[str, Any]) -> dict[str, Any]:
            return {**attr, "p": float(value)} if _dropout_name(attr) == self._name else attr

        self._module.graph = with_dropout(self._module.graph, change)


def _dropout_name(attrs: Mapping[str, Any]) -> str:
    """The name of the module that it was; graphs of before layers were named have their number."""
    return str(attrs.get("name") or f"dropout{attrs['layer']}")
