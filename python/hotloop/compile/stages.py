# SPDX-License-Identifier: Apache-2.0
"""Stages: the steps of a plan in an order that lets a team of threads work with few barriers.

    rows     every step of the stage treats row r of the batch from row r alone, so each thread takes a block
             of rows through the whole chain (forward, loss, gradients by activations) without waiting
    chunks   steps that do not touch one another: the chunks of all of them are one pool of work

A network without norms over the batch needs four: weights packed and the batch gathered | rows | all weight
gradients | the update. Which thread does what never changes a bit: a row's result does not depend on the
rows beside it, and a chunk of a weight gradient sums the whole batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from hotloop.compile.kernels import EXTENTS, family, rows_field
from hotloop.compile.plan import ARENA_KINDS, REAL_BYTES, Buffer, Operand, Plan, Stage, Step
from hotloop.graph import Affine

#: kernel -> [(field, kind, dtype)]
Schema = Mapping[str, Sequence[tuple[str, str, str]]]


def add_stages(plan: Plan, schema: Schema) -> Plan:
    """The plan with its steps in stages; forward and backward of a training plan become one section.

    Runs before memory is planned: what may share bytes depends on the stages.
    """
    kinds = [{name: kind for name, kind, _ in schema[step.kernel]} for step in plan.steps]
    needs = _needs(plan, kinds)
    local = [is_row_local(step, kind, plan.buffers) for step, kind in zip(plan.steps, kinds, strict=True)]
    inputs = {buffer for _, buffer in plan.inputs}
    order: list[int] = []
    stages: list[Stage] = []
    sections: list[tuple[str, int, int]] = []
    for name, begin, end in _regions(plan):
        first = len(order)
        waiting = list(range(begin, end))
        if name == "forward":
            # what needs no input comes first, so that it can run while the batch is gathered
            early = [i for i in waiting if not needs[i] and not inputs & _buffers(plan.steps[i])]
            _append(stages, order, "chunks", [i for i in early if not local[i]])
        _fill(stages, order, [i for i in waiting if i not in order], needs, local)
        sections.append((name, first, len(order)))
    steps = tuple(plan.steps[i] for i in order)
    return dataclasses.replace(
        plan, steps=steps, stages=tuple(stages), sections=_all_sections(plan, sections)
    )


def _fill(
    stages: list[Stage],
    order: list[int],
    waiting: list[int],
    needs: Sequence[set[int]],
    local: Sequence[bool],
) -> None:
    """Stages for the steps ``waiting``: by turns all that can run as chunks, and the longest chains of rows."""
    outside = set(waiting)  # a need that is none of these was met before
    while waiting:
        done = {i for i in outside if i not in waiting}
        chunks = [i for i in waiting if not local[i] and needs[i] & outside <= done]
        _append(stages, order, "chunks", chunks)
        done.update(chunks)
        rows = []
        for i in waiting:  # in the plan's order, so that a chain is followed in one pass
            if local[i] and needs[i] & outside <= done:
                rows.append(i)
                done.add(i)
        _append(stages, order, "rows", rows)
        waiting = [i for i in waiting if i not in done]


def _append(stages: list[Stage], order: list[int], kind: str, steps: list[int]) -> None:
    if steps:
        stages.append(Stage("rows" if kind == "rows" else "chunks", len(order), len(order) + len(steps)))
        order += steps


def _regions(plan: Plan) -> list[tuple[str, int, int]]:
    """The sections, but forward and backward of a training step as one: nothing runs between them."""
    if plan.mode != "train":
        return list(plan.sections)
    (forward, begin, _), (_, _, end), *rest = (s for s in plan.sections)
    return [(forward, begin, end), *rest]


def _all_sections(plan: Plan, regions: list[tuple[str, int, int]]) -> tuple[tuple[str, int, int], ...]:
    """Every section of the plan again; one that became part of another is empty, at its end."""
    found = {name: (begin, end) for name, begin, end in regions}
    result, at = [], 0
    for name, _, _ in plan.sections:
        begin, end = found.get(name, (at, at))
        result.append((name, begin, end))
        at = end
    return tuple(result)


def _buffers(step: Step) -> set[int]:
    return {value.buffer for _, value in step.fields if isinstance(value, Operand)}


def is_row_local(step: Step, kinds: Mapping[str, str], buffers: Sequence[Buffer]) -> bool:
    """Whether rows [r, s) of what the step writes follow from rows [r, s) of what it reads.

    Then the step may run on a block of rows: sizes for s - r rows, and every operand whose size follows the
    batch shifted by r rows. So rows must be outermost in all of those, and all that is written must be one.
    """
    fields = dict(step.fields)
    counting = rows_field(step)
    following = [name for name, v in step.fields if isinstance(v, Affine) and v.per_row]
    if counting is None or following != [counting]:
        return False
    rows = fields[counting]
    assert isinstance(rows, Affine)
    if rows.const:
        return False
    for name, value in step.fields:
        if not isinstance(value, Operand):
            continue
        buffer = buffers[value.buffer]
        if not buffer.size.per_row:
            if kinds[name] not in ("In", "InOpt"):
                return False
        elif buffer.size.const or not _rows_are_outermost(step, name, counting, buffer.size.per_row):
            return False
    return True


def _rows_are_outermost(step: Step, operand: str, counting: str, per_row: int) -> bool:
    """Whether what the kernel reads or writes of an operand for r rows are the first r rows of its buffer."""
    fields = dict(step.fields)
    rows = fields[counting]
    assert isinstance(rows, Affine)
    stride = fields.get(f"{operand[0]}{counting[1:]}") if counting in ("d0", "d1", "d2", "d3") else None
    if isinstance(stride, Affine):  # binary and copy state the strides of most operands
        return stride == Affine(0, per_row // rows.per_row)
    extent = EXTENTS[family(step.kernel)][operand]
    for r in (1, 3):
        numbers = {n: v.at(r) if isinstance(v, Affine) else v for n, v in fields.items()}
        if extent({n: v for n, v in numbers.items() if isinstance(v, int)}) != r * per_row:
            return False
    return True


def _needs(plan: Plan, kinds: Sequence[Mapping[str, str]]) -> list[set[int]]:
    """For every step the earlier steps that must come before it: one of both writes what the other uses."""
    overlapping = _overlapping(plan)
    readers: dict[int, set[int]] = {}
    writers: dict[int, set[int]] = {}
    needs: list[set[int]] = []
    for index, (step, kind) in enumerate(zip(plan.steps, kinds, strict=True)):
        found: set[int] = set()
        uses = [(v.buffer, kind[name]) for name, v in step.fields if isinstance(v, Operand)]
        for buffer, how in uses:
            for other in overlapping(buffer):
                found |= writers.get(other, set())
                if how not in ("In", "InOpt"):
                    found |= readers.get(other, set())
        for buffer, how in uses:
            table = readers if how in ("In", "InOpt") else writers
            table.setdefault(buffer, set()).add(index)
        needs.append(found)
    return needs


def _overlapping(plan: Plan) -> Callable[[int], list[int]]:
    """The buffers that share memory with one: itself, and in the session's memory those at the same place."""
    width = {"index": 4, "double": 8, "int64": 8, "real": REAL_BYTES[plan.dtype]}
    flat = [
        (i, b.kind, b.offset, b.offset + b.size.const * width[b.dtype])
        for i, b in enumerate(plan.buffers)
        if b.kind not in ARENA_KINDS
    ]
    found = {
        i: [j for j, other, lo, hi in flat if kind == other and lo < end and begin < hi]
        for i, kind, begin, end in flat
    }
    return lambda buffer: found.get(buffer, [buffer])
