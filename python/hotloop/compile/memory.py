# SPDX-License-Identifier: Apache-2.0
"""Memory: give every buffer of the arena an offset, so that buffers share bytes when they live apart.

A buffer lives from the first step that names it to the last; in a plan with stages, whose steps overlap in
time, from the first stage to the last. Sizes grow with the rows, so offsets are set for ``max_rows`` and
hold for every smaller batch. Largest first, each at the lowest place that is free
during its life: the greedy order that keeps the peak near the most bytes ever live at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hotloop.compile.kernels import in_place
from hotloop.compile.plan import ALIGN_BYTES, ARENA_KINDS, Operand, Plan, Step

_WIDTH = {"index": 4, "double": 8, "int64": 8}


@dataclass(frozen=True)
class Life:
    """``n_bytes`` that are needed from step ``begin`` to step ``end``, both included."""

    n_bytes: int
    begin: int
    end: int


def buffer_bytes(plan: Plan, buffer: int, rows: int) -> int:
    """Bytes of a buffer in a batch of so many rows."""
    entry = plan.buffers[buffer]
    width = {"float32": 4, "float64": 8}[plan.dtype] if entry.dtype == "real" else _WIDTH[entry.dtype]
    return entry.size.at(rows) * width


def operands(step: Step) -> list[Operand]:
    """Every operand of a step, reads and writes alike."""
    return [value for _, value in step.fields if isinstance(value, Operand)]


def lifetimes(plan: Plan) -> dict[int, Life]:
    """The life of every buffer of the arena, in whole stages.

    Inputs are filled before the first step; outputs may be read after the last; what the update section
    uses for itself, and what the prepare section makes, lives throughout: the one may run at any time, the
    other serves many runs.
    """
    begins, ends = list(range(len(plan.steps) + 1)), list(range(len(plan.steps) + 1))
    for stage in plan.stages:
        for index in range(stage.begin, stage.end):
            begins[index], ends[index] = stage.begin, stage.end - 1
    return {
        buffer: Life(life.n_bytes, begins[life.begin], ends[life.end])
        for buffer, life in step_lifetimes(plan).items()
    }


def step_lifetimes(plan: Plan) -> dict[int, Life]:
    """The lives as if the steps ran one after the other."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, step in enumerate(plan.steps):
        for operand in operands(step):
            first.setdefault(operand.buffer, index)
            last[operand.buffer] = index
    for _, buffer in plan.inputs:
        first[buffer] = 0
        last.setdefault(buffer, 0)
    for _, buffer in plan.outputs:
        first.setdefault(buffer, 0)
        last[buffer] = len(plan.steps)
    update = next((begin for name, begin, _ in plan.sections if name == "update"), len(plan.steps))
    filled = dict(plan.inputs).values()
    lives: dict[int, Life] = {}
    for buffer, begin in first.items():
        if plan.buffers[buffer].kind in ARENA_KINDS:
            n_bytes = buffer_bytes(plan, buffer, plan.max_rows)
            prepared = begin < plan.prepare and buffer not in filled
            if prepared or (begin >= update and buffer not in dict(plan.outputs).values()):
                lives[buffer] = Life(n_bytes, 0, len(plan.steps))
            else:
                lives[buffer] = Life(n_bytes, begin, last[buffer])
    return lives


def pack(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offsets, aligned to `ALIGN_BYTES`, such that no two lives that meet overlap; and the bytes they span.

    >>> pack([Life(64, 0, 1), Life(64, 2, 3), Life(128, 1, 2)])
    ([128, 128, 0], 192)
    """
    offsets = [0] * len(lives)
    placed: list[tuple[int, int, int, int]] = []  # offset, end of bytes, begin, end of life
    total = 0
    for index in sorted(range(len(lives)), key=lambda i: (-lives[i].n_bytes, lives[i].begin)):
        life = lives[index]
        if not life.n_bytes:
            continue
        size = _aligned(life.n_bytes)
        offset = 0
        # neighbours in life, from the lowest up: take the first gap that is wide enough
        for start, stop in sorted((p[0], p[1]) for p in placed if p[2] <= life.end and life.begin <= p[3]):
            if offset + size <= start:
                break
            offset = max(offset, stop)
        offsets[index] = offset
        placed.append((offset, offset + size, life.begin, life.end))
        total = max(total, offset + size)
    return offsets, total


def lower_bound(lives: Sequence[Life]) -> int:
    """The most bytes that live at once: no assignment of offsets needs fewer."""
    change: dict[int, int] = {}
    for life in lives:
        change[life.begin] = change.get(life.begin, 0) + _aligned(life.n_bytes)
        change[life.end + 1] = change.get(life.end + 1, 0) - _aligned(life.n_bytes)
    peak = live = 0
    for time in sorted(change):
        live += change[time]
        peak = max(peak, live)
    return peak


def plan_memory(plan: Plan) -> Plan:
    """The plan with an offset for every buffer of its arena.

    Where a kernel may write over an input and the input dies there, the output takes its place.
    """
    lives, exact = lifetimes(plan), step_lifetimes(plan)
    home: dict[int, int] = {}  # buffer -> the buffer whose place it takes
    for index in range(len(plan.steps)):
        for out, source in overwrites(plan, index, exact):
            leader = home.get(source, source)
            life = lives[leader]
            lives[leader] = Life(life.n_bytes, life.begin, max(life.end, lives[out].end))
            home[out] = leader
            break
    leaders = [buffer for buffer in lives if buffer not in home]
    offsets, total = pack([lives[buffer] for buffer in leaders])
    place = dict(zip(leaders, offsets, strict=True))
    buffers = list(plan.buffers)
    for buffer in lives:
        buffers[buffer] = dataclasses.replace(buffers[buffer], offset=place[home.get(buffer, buffer)])
    return dataclasses.replace(plan, buffers=tuple(buffers), arena_bytes=total)


def overwrites(plan: Plan, index: int, exact: Mapping[int, Life]) -> Iterator[tuple[int, int]]:
    """(output, input) pairs of a step such that the output may take the very place of the input.

    The kernel allows it, the input ends here, both are whole buffers of one size, and no step that
    may run at the same time uses the input. ``exact``: `step_lifetimes`.
    """
    found = in_place(plan.steps[index])
    if found is None:
        return
    out, inputs = found
    if out.buffer not in exact or exact[out.buffer].begin != index:
        return
    mentions = [operand.buffer for operand in operands(plan.steps[index])]
    beside = _beside(plan, index)
    a = plan.buffers[out.buffer]
    for operand in inputs:
        b = plan.buffers[operand.buffer]
        if (
            operand.buffer in exact
            and not (operand.offset or out.offset)
            and mentions.count(operand.buffer) == sum(i.buffer == operand.buffer for i in inputs)
            and exact[operand.buffer].end == index
            and (a.size, a.dtype) == (b.size, b.dtype)
            and operand.buffer not in beside
        ):
            yield out.buffer, operand.buffer


def _beside(plan: Plan, index: int) -> set[int]:
    """Buffers of the steps that run at the same time in any order. In a stage of rows the order is kept."""
    stage = next((s for s in plan.stages if s.begin <= index < s.end), None)
    if stage is None or stage.kind == "rows":
        return set()
    others = (plan.steps[i] for i in range(stage.begin, stage.end) if i != index)
    return {operand.buffer for step in others for operand in operands(step)}


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGN_BYTES) * ALIGN_BYTES
