# SPDX-License-Identifier: Apache-2.0
"""Verifiers: what every graph between two passes, and every finished plan, must satisfy.

They cost little, run on every compilation, and turn a compiler's mistake into a named error before any
kernel touches memory. The native executor checks plans once more on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

from hotloop.compile.kernels import EXTENTS, family
from hotloop.compile.memory import Life, lifetimes, operands, overwrites, step_lifetimes
from hotloop.compile.plan import ALIGN_BYTES, ARENA_KINDS, Operand, Plan, Step
from hotloop.errors import InternalError
from hotloop.graph import Affine, Graph
from hotloop.rules.registry import rule_of

#: kernel -> [(field, In | InOpt | Out | OutOpt | InOut | InOutOpt | Dim | Int | Real, dtype)], as in args.h
Schema = Mapping[str, Sequence[tuple[str, str, str]]]


@cache
def native_schema() -> Schema | None:
    """The schema of the compiled kernels; None where the extension is not built."""
    try:
        from hotloop import _core  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    schema: Schema = _core.kernels()
    return schema


def check_graph(graph: Graph, where: str) -> Graph:
    """The graph itself, if every value is written once and before it is read, and every node's types follow
    from its rule. Raises `InternalError` naming the pass ``where``."""
    written: set[int] = set()

    def write(value: int, what: str) -> None:
        _require(value in range(len(graph.types)), where, f"{what} writes value {value}, which has no type")
        _require(value not in written, where, f"{what} writes value {value} again")
        written.add(value)

    for kind, border in (("input", graph.inputs), ("parameter", graph.parameters), ("state", graph.states)):
        _require(len(dict(border)) == len(border), where, f"two {kind}s share a name: {border}")
        for name, value in border:
            write(value, f"{kind} {name}")
    for node in graph.nodes:
        types = []
        for source in node.inputs:
            _require(
                source is None or source in written, where, f"{node.op} reads value {source} before its time"
            )
            types.append(None if source is None else graph.types[source])
        for value in node.outputs:
            write(value, node.op)
        expected = rule_of(node.op).shape(types, node.attr)
        have = tuple(graph.types[value] for value in node.outputs)
        _require(have == expected, where, f"{node.op} makes {expected}, the graph says {have}")
    for name, value in graph.outputs:
        _require(value in written, where, f"output {name} is value {value}, which nothing writes")
    return graph


def check_plan(plan: Plan, schema: Schema | None = None) -> Plan:
    """The plan itself, if it is one that may run; else `InternalError` naming step and field.

    Fields against the schema (as far as one is known: given, or the native one), operands within their
    buffers for one row and for all, arena buffers aligned, inside the arena and apart while they live, and
    every buffer written before it is read.
    """
    schema = native_schema() if schema is None else schema
    for index, step in enumerate(plan.steps):
        if schema is not None:
            _check_fields(plan, step, index, schema)
        _check_extents(plan, step, index)
        _check_numbers(plan, step, index)
    _check_sections(plan)
    _check_stages(plan)
    _check_arena(plan)
    if schema is not None:
        _check_written(plan, schema)
    for metric in plan.metrics:
        _require(metric.kind != "loss" or metric.offset == 0, "metrics", "the loss totals must come first")
    return plan


_KINDS = {"Dim": Affine, "Int": int, "Real": float}


def _check_fields(plan: Plan, step: Step, index: int, schema: Schema) -> None:
    where = f"step {index}, {step.kernel}"
    _require(step.kernel in schema, where, "no such kernel")
    fields = dict(step.fields)
    known = {name for name, _, _ in schema[step.kernel]}
    _require(len(fields) == len(step.fields), where, "a field is given twice")
    _require(known >= fields.keys(), where, f"unknown fields {sorted(fields.keys() - known)}")
    _require(fields.keys() >= known, where, f"fields {sorted(known - fields.keys())} are missing")
    for name, kind, dtype in schema[step.kernel]:
        value = fields[name]
        if kind in _KINDS:
            _require(type(value) is _KINDS[kind], where, f"{name} must be {kind}, got {value!r}")
        elif value is None:
            _require(kind.endswith("Opt"), where, f"the operand {name} is missing")
        else:
            _require(isinstance(value, Operand), where, f"{name} must be an operand, got {value!r}")
            assert isinstance(value, Operand)
            _require(0 <= value.buffer < len(plan.buffers), where, f"{name} names buffer {value.buffer}")
            buffer = plan.buffers[value.buffer]
            have = buffer.dtype
            _require(have == dtype, where, f"{name} must hold {dtype}, buffer {value.buffer} holds {have}")
            _require(kind in ("In", "InOpt") or buffer.kind != "constant", where, f"{name} writes a constant")


def _check_extents(plan: Plan, step: Step, index: int) -> None:
    spans = EXTENTS.get(family(step.kernel), {})
    for rows in {1, plan.max_rows}:
        dims: dict[str, int] = {}
        for name, value in step.fields:
            if isinstance(value, Affine):
                dims[name] = value.at(rows)
                if dims[name] < 0:
                    raise _error(f"step {index}, {step.kernel}", f"{name} is {dims[name]} at {rows} rows")
            elif isinstance(value, int):
                dims[name] = value
        for name, value in step.fields:
            if isinstance(value, Operand):
                size = plan.buffers[value.buffer].size.at(rows)
                end = value.offset + (spans[name](dims) if name in spans else 0)
                if value.offset < 0 or end > size:
                    raise _error(
                        f"step {index}, {step.kernel}",
                        f"{name} reaches element {end} of {size} in buffer "
                        f"{plan.buffers[value.buffer].name!r} at {rows} rows",
                    )


def _check_numbers(plan: Plan, step: Step, index: int) -> None:
    """Layers and groups that the row of step parameters has."""
    for name, limit in (("dropout", plan.n_dropout), ("group", plan.n_groups)):
        number = dict(step.fields).get(name, -1)
        if isinstance(number, int) and number >= limit:
            raise _error(f"step {index}, {step.kernel}", f"{name} is {number} of {limit}")


def _check_sections(plan: Plan) -> None:
    at = 0
    for name, begin, end in plan.sections:
        _require(
            begin == at and end >= begin, "sections", f"{name} is [{begin}, {end}), expected to begin at {at}"
        )
        at = end
    _require(at == len(plan.steps), "sections", f"they end at {at} of {len(plan.steps)} steps")


def _check_stages(plan: Plan) -> None:
    """They cover the steps in order, and none reaches over the border of a section."""
    at, borders = 0, {begin for _, begin, _ in plan.sections}
    for stage in plan.stages:
        _require(stage.begin == at < stage.end, "stages", f"{stage} is expected to begin at {at}")
        within = not any(stage.begin < border < stage.end for border in borders)
        _require(within, "stages", f"{stage} reaches into another section")
        at = stage.end
    _require(
        not plan.stages or at == len(plan.steps), "stages", f"they end at {at} of {len(plan.steps)} steps"
    )


def _check_arena(plan: Plan) -> None:
    """Sweep over the steps: of the buffers alive at one, sorted by offset, no two neighbours may overlap."""
    lives = lifetimes(plan)
    for buffer, first in _taken_over(plan).items():  # one life for those that follow each other in a place
        own, before = lives.pop(buffer), lives[first]
        end = max(own.end, before.end)
        lives[first] = Life(before.n_bytes, before.begin, end)
    for buffer, life in lives.items():
        entry = plan.buffers[buffer]
        where = f"buffer {buffer}, {entry.name}"
        _require(entry.offset % ALIGN_BYTES == 0, where, f"offset {entry.offset} is not aligned")
        _require(
            entry.offset >= 0 and entry.offset + life.n_bytes <= plan.arena_bytes,
            where,
            "reaches out of the arena",
        )
    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for buffer, life in lives.items():
        if life.n_bytes:
            starts.setdefault(life.begin, []).append(buffer)
            ends.setdefault(life.end, []).append(buffer)
    alive: set[int] = set()
    for index in range(len(plan.steps) + 1):
        born = starts.get(index, [])
        alive.update(born)
        if born:
            _check_apart(plan, index, alive, lives)
        alive.difference_update(ends.get(index, []))


def _check_apart(plan: Plan, index: int, alive: set[int], lives: Mapping[int, Life]) -> None:
    ordered = sorted(alive, key=lambda b: (plan.buffers[b].offset, b))
    for low, high in pairwise(ordered):
        end = plan.buffers[low].offset + lives[low].n_bytes
        if end > plan.buffers[high].offset:
            raise _error(
                f"step {index}",
                f"buffers {low} ({plan.buffers[low].name}) and {high} ({plan.buffers[high].name}) "
                f"are both alive and overlap at byte {plan.buffers[high].offset} of the arena",
            )


def _taken_over(plan: Plan) -> dict[int, int]:
    """Buffers that stand at the very place of an input of the step that writes them -> the first one there."""
    exact = step_lifetimes(plan)
    root: dict[int, int] = {}
    for index in range(len(plan.steps)):
        for out, source in overwrites(plan, index, exact):
            if plan.buffers[out].offset == plan.buffers[source].offset:
                root[out] = root.get(source, source)
    return root


def _check_written(plan: Plan, schema: Schema) -> None:
    written = {buffer for _, buffer in plan.inputs}
    for index, step in enumerate(plan.steps):
        fields = dict(step.fields)
        for name, kind, _ in schema[step.kernel]:
            value = fields.get(name)
            if not isinstance(value, Operand) or plan.buffers[value.buffer].kind not in ARENA_KINDS:
                continue
            if kind.startswith("In") and value.buffer not in written:
                name = plan.buffers[value.buffer].name
                raise _error(
                    f"step {index}, {step.kernel}", f"reads buffer {name!r}, which nothing wrote yet"
                )
        written.update(operand.buffer for operand in operands(step))
    for name, buffer in plan.outputs:
        _require(
            buffer in written or plan.buffers[buffer].kind not in ARENA_KINDS,
            "outputs",
            f"nothing writes {name}",
        )


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise _error(where, message)


def _error(where: str, message: str) -> InternalError:
    return InternalError(f"[compile: {where}] {message}; this is a mistake of the compiler, please report it")
