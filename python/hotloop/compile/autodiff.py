# SPDX-License-Identifier: Apache-2.0
"""Reverse-mode differentiation: one walk backwards over the nodes, one rule per op.

The gradient of every value is the sum of what its readers contribute. Nodes that no wanted value influences
are passed by; what a rule builds for inputs that need nothing (the first layer's input, labels) is dead code
and removed by the simplify pass that follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hotloop.compile.objective import DOUTPUT
from hotloop.compile.rewrite import drop_dead
from hotloop.errors import GraphError
from hotloop.graph import Graph, Node
from hotloop.rules.registry import GraphBuilder, rule_of

GRAD = "grad:"
#: Before the name of an input whose gradient is wanted.
INPUT = "input:"


def add_gradients(graph: Graph, frozen: Collection[str] = (), of_inputs: Collection[str] = ()) -> Graph:
    """The graph of a training or vjp plan with an output ``grad:<name>`` for every parameter that
    influences the objective and is not ``frozen``, and ``grad:input:<name>`` for the inputs ``of_inputs``.
    Below the lowest of those nothing is differentiated."""
    wanted = {name: value for name, value in graph.parameters if name not in frozen}
    wanted |= {INPUT + name: value for name, value in graph.inputs if name in of_inputs}
    outputs, inputs = dict(graph.outputs), dict(graph.inputs)
    if "row_loss" in outputs:
        seeds = {outputs.pop("row_loss"): outputs.pop("drow")}
    else:
        seeds = {outputs["output"]: inputs[DOUTPUT]}
    return differentiate(graph, seeds, wrt=wanted, keep=outputs)


def differentiate(
    graph: Graph, seeds: Mapping[int, int], *, wrt: Mapping[str, int], keep: Mapping[str, int]
) -> Graph:
    """Append the gradients of the values ``wrt``, as outputs ``grad:<name>`` beside the outputs ``keep``.

    ``seeds`` maps a value to its gradient, where differentiation starts. A value without influence gets
    no output. Raises `GraphError` for an op on the way that has no gradient.
    """
    influenced = _influenced(graph, wrt.values())
    builder = GraphBuilder.extend(graph)
    gradients: dict[int, int] = {}

    def contribute(value: int, gradient: int) -> None:
        if value in gradients:
            (gradient,) = builder.emit("add", gradients[value], gradient)
        gradients[value] = gradient

    for value, gradient in seeds.items():
        if value in influenced:
            contribute(value, gradient)
    for node in reversed(graph.nodes):
        douts = tuple(gradients.get(value) for value in node.outputs)
        if all(d is None for d in douts) or not any(value in influenced for value in node.inputs):
            continue
        for source, contribution in zip(node.inputs, _input_gradients(builder, node, douts), strict=True):
            if source is not None and contribution is not None and source in influenced:
                contribute(source, contribution)
    outputs = list(keep.items())
    outputs += [(GRAD + name, gradients[value]) for name, value in wrt.items() if value in gradients]
    return drop_dead(builder.build(outputs))


def _input_gradients(
    builder: GraphBuilder, node: Node, douts: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    rule = rule_of(node.op)
    if rule.grad is None:
        raise GraphError(
            f"[autodiff] {node.op} has no gradient; it cannot stand between a parameter and the loss"
        )
    return rule.grad(builder, node, douts)


def _influenced(graph: Graph, sources: Iterable[int]) -> set[int]:
    """The values that depend on any of the sources, through real numbers."""
    influenced = set(sources)
    for node in graph.nodes:
        if any(value in influenced for value in node.inputs):
            influenced.update(value for value in node.outputs if graph.types[value].dtype == "real")
    return influenced
