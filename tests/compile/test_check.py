# SPDX-License-Identifier: Apache-2.0
"""The verifiers accept what the compiler makes and refuse every way of breaking it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from hotloop.compile import check_graph, check_plan, compile_uncached
from hotloop.compile.memory import lifetimes
from hotloop.compile.plan import Operand, Plan, PlanSpec, Step
from hotloop.errors import InternalError
from hotloop.graph import Affine, Graph, Rows, TensorType
from tests.compile.graphs import ADAMW, LOSSES, mlp, schema, train_spec

GRAPH = mlp((8, 16, 3), "gelu", dropout=0.2)
SPEC = train_spec("cross_entropy", optimizer=ADAMW, weighted=True, clip_norm=1.0, metrics=("accuracy",))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("fused", [True, False])
def test_good_training_plans_pass(kind: str, fused: bool) -> None:
    spec = dataclasses.replace(train_spec(kind), optimizer=ADAMW, clip_value=1.0)
    check_plan(compile_uncached(GRAPH, spec, fused=fused), schema())


@pytest.mark.parametrize("mode", ["vjp", "predict"])
def test_good_plans_without_a_loss_pass(mode: str) -> None:
    check_plan(compile_uncached(GRAPH, PlanSpec(mode, 4, dtype="float64")), schema())  # type: ignore[arg-type]


def edit(kernel: str, **fields: object) -> Callable[[Plan], Plan]:
    """Change fields of the first step of a kernel; the value ... removes the field."""

    def change(plan: Plan) -> Plan:
        index = next(i for i, step in enumerate(plan.steps) if step.kernel == kernel)
        values = {**dict(plan.steps[index].fields), **fields}
        kept = tuple((name, value) for name, value in values.items() if value is not ...)
        return with_step(plan, index, dataclasses.replace(plan.steps[index], fields=kept))  # type: ignore[arg-type]

    return change


def with_step(plan: Plan, index: int, step: Step) -> Plan:
    return dataclasses.replace(plan, steps=(*plan.steps[:index], step, *plan.steps[index + 1 :]))


def move(plan: Plan, buffer: int, offset: int) -> Plan:
    buffers = list(plan.buffers)
    buffers[buffer] = dataclasses.replace(buffers[buffer], offset=offset)
    return dataclasses.replace(plan, buffers=tuple(buffers))


def overlap(plan: Plan) -> Plan:
    """The prediction moved onto the labels, which live at the same time."""
    fields = dict(next(step for step in plan.steps if step.kernel == "cross_entropy").fields)
    logits, labels = fields["logits"], fields["labels"]
    assert isinstance(logits, Operand)
    assert isinstance(labels, Operand)
    return move(plan, logits.buffer, plan.buffers[labels.buffer].offset)


def misaligned(plan: Plan) -> Plan:
    buffer = next(iter(lifetimes(plan)))
    return move(plan, buffer, plan.buffers[buffer].offset + 4)


def renamed(plan: Plan) -> Plan:
    return with_step(plan, 0, dataclasses.replace(plan.steps[0], kernel="pack"))


def swapped(plan: Plan) -> Plan:
    """The first product before its panels are packed."""
    first, second, *rest = plan.steps
    return dataclasses.replace(plan, steps=(second, first, *rest))


def smaller_arena(plan: Plan) -> Plan:
    return dataclasses.replace(plan, arena_bytes=plan.arena_bytes - 64)


def torn_sections(plan: Plan) -> Plan:
    (name, begin, end), *rest = plan.sections
    return dataclasses.replace(plan, sections=((name, begin, end - 1), *rest))


def constant_written(plan: Plan) -> Plan:
    fields = dict(next(step for step in plan.steps if step.kernel == "matmul").fields)
    out = fields["out"]
    assert isinstance(out, Operand)
    buffers = list(plan.buffers)
    buffers[out.buffer] = dataclasses.replace(buffers[out.buffer], kind="constant")
    return dataclasses.replace(plan, buffers=tuple(buffers))


def loss_not_first(plan: Plan) -> Plan:
    return dataclasses.replace(
        plan, metrics=tuple(dataclasses.replace(m, offset=m.offset + 1) for m in plan.metrics)
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (overlap, "both alive and overlap"),
        (misaligned, "not aligned"),
        (smaller_arena, "out of the arena"),
        (renamed, "step 0, pack.*no such kernel"),
        (swapped, "step 0, matmul.*nothing wrote yet"),
        (torn_sections, "sections.*expected to begin"),
        (loss_not_first, "loss totals must come first"),
        (edit("matmul", activation=...), r"fields \['activation'\] are missing"),
        (edit("matmul", slope=1.0), r"unknown fields \['slope'\]"),
        (edit("matmul", a=None), "the operand a is missing"),
        (edit("matmul", a=3), "a must be an operand, got 3"),
        (edit("matmul", m=6), "m must be Dim, got 6"),
        (edit("matmul", p0=1), "p0 must be Real, got 1"),
        (edit("matmul", m=Affine(0, -1)), "m is -1 at 1 rows"),
        (edit("matmul", m=Affine(1, 1)), "reaches element"),
        (edit("matmul", k=Affine(0, 9)), "reaches element"),
        (edit("matmul", a=Operand(999)), "a names buffer 999"),
        (edit("cross_entropy", labels=Operand(0)), "labels must hold index, buffer 0 holds real"),
        (edit("matmul", dropout=1), "dropout is 1 of 1"),
        (edit("optimizer_begin", group=1), "group is 1 of 1"),
        (constant_written, "out writes a constant"),
        (edit("optimizer_begin", n_partial=Affine(0, 2)), "partial reaches element 2 of 1"),
    ],
)
def test_broken_plans_are_refused(broken: Callable[[Plan], Plan], message: str) -> None:
    plan = compile_uncached(GRAPH, SPEC)
    check_plan(plan, schema())
    with pytest.raises(InternalError, match=message):
        check_plan(broken(plan), schema())


def test_an_output_over_an_input_that_lives_on_is_refused() -> None:
    graph = mlp((4, 4, 4), "tanh")
    plan = compile_uncached(graph, train_spec("mse"), fused=False)
    fields = dict(next(step for step in plan.steps if step.kernel == "tanh_fwd").fields)
    y, product = fields["y"], next(step for step in plan.steps if step.kernel == "matmul")
    x = dict(product.fields)["a"]
    assert isinstance(x, Operand)
    assert isinstance(y, Operand)
    # x is an input that the backward section reads; tanh's output fits exactly over it
    with pytest.raises(InternalError, match="both alive and overlap"):
        check_plan(move(plan, y.buffer, plan.buffers[x.buffer].offset), schema())


def broken_graph(**changes: object) -> Graph:
    return dataclasses.replace(GRAPH, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (broken_graph(nodes=GRAPH.nodes[1:]), "gelu reads value 3 before its time"),
        (broken_graph(nodes=(*GRAPH.nodes, GRAPH.nodes[0])), "linear writes value 3 again"),
        (broken_graph(types=(TensorType((Rows(), 9)), *GRAPH.types[1:])), "must be 8"),
        (broken_graph(types=(*GRAPH.types[:3], TensorType((Rows(), 5)), *GRAPH.types[4:])), "the graph says"),
        (broken_graph(outputs=(("output", 3), ("more", 99))), "output more is value 99"),
        (broken_graph(parameters=(*GRAPH.parameters, GRAPH.parameters[0])), "share a name"),
    ],
)
def test_broken_graphs_are_refused(graph: Graph, message: str) -> None:
    check_graph(GRAPH, "test")
    with pytest.raises(ValueError if "must be" in message else InternalError, match=message):
        check_graph(graph, "test")
