# SPDX-License-Identifier: Apache-2.0
"""The compiler: a traced graph in, a Plan out.

    specialize -> objective -> autodiff -> simplify -> fuse -> simplify -> lower -> stages -> memory -> check

Each pass up to `lower` is a function from graph to graph, and every graph in between is verified. Memory is
planned after lowering, because only then is it known what scratch the kernels need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

# the rules of every op
import hotloop.rules
from hotloop.compile.autodiff import add_gradients, differentiate
from hotloop.compile.cache import cached
from hotloop.compile.check import check_graph, check_plan, native_schema
from hotloop.compile.explain import explain
from hotloop.compile.fuse import fuse
from hotloop.compile.layout import param_layout, state_layout
from hotloop.compile.lower import lower
from hotloop.compile.memory import plan_memory
from hotloop.compile.objective import join_objective
from hotloop.compile.plan import Plan, PlanSpec
from hotloop.compile.simplify import simplify
from hotloop.compile.specialize import specialize
from hotloop.compile.stages import add_stages
from hotloop.errors import GraphError
from hotloop.graph import Graph

__all__ = [
    "check_graph",
    "check_plan",
    "compile_plan",
    "compile_uncached",
    "differentiate",
    "explain",
    "param_layout",
    "pass_through",
    "state_layout",
]


@cached
def compile_plan(graph: Graph, spec: PlanSpec) -> Plan:
    """The plan of a traced model for one mode, number of rows, loss and optimiser; cached by value.

    Raises `ShapeError`, `DTypeError` or `GraphError` where model, target and loss do not fit each other.

    >>> from hotloop.graph import Rows, TensorType
    >>> from hotloop.rules.registry import GraphBuilder
    >>> builder = GraphBuilder()
    >>> x, weight = builder.input("x", TensorType((Rows(), 4))), builder.parameter("weight", (3, 4))
    >>> graph = builder.build([("output", builder.emit("linear", x, weight, None)[0])])
    >>> plan = compile_plan(graph, PlanSpec("predict", max_rows=8))
    >>> [step.kernel for step in plan.steps]
    ['pack_panels', 'matmul']
    """
    return compile_uncached(graph, spec)


def compile_uncached(graph: Graph, spec: PlanSpec, *, fused: bool | Collection[str] = True) -> Plan:
    """As `compile_plan`, always anew; ``fused``: which rules of `fuse` apply, False leaves every op alone."""
    if spec.max_rows < 1:
        raise GraphError(f"[compile] max_rows must be at least 1, got {spec.max_rows}")
    *_, (_, final) = pass_through(graph, spec, fused=fused)
    # one probability per layer of the model in training plans, whether or not the layer is still there
    training = spec.mode in ("train", "vjp")
    layers = [node.attr["layer"] for node in graph.nodes if training and node.op == "dropout"]
    plan = lower(final, spec, n_dropout=max(layers, default=-1) + 1)
    schema = native_schema()
    if spec.spread and schema is not None:  # without the extension nothing runs in threads
        plan = add_stages(plan, schema)
    return check_plan(plan_memory(plan))


def pass_through(
    graph: Graph, spec: PlanSpec, *, fused: bool | Collection[str] = True
) -> Iterator[tuple[str, Graph]]:
    """The graph after each pass, by the pass's name; each one is verified."""
    training = spec.mode in ("train", "vjp")
    yield "trace", check_graph(graph, "trace")
    graph = check_graph(
        specialize(graph, training and not spec.evaluated, spec.trainable.frozen), "specialize"
    )
    yield "specialize", graph
    graph = check_graph(join_objective(graph, spec), "objective")
    yield "objective", graph
    if training:
        graph = add_gradients(graph, spec.trainable.frozen, spec.input_gradients)
        graph = check_graph(graph, "autodiff")
        yield "autodiff", graph
    graph = check_graph(simplify(graph), "simplify")
    yield "simplify", graph
    if fused:
        graph = check_graph(simplify(fuse(graph, None if fused is True else fused)), "fuse")
        yield "fuse", graph
