# SPDX-License-Identifier: Apache-2.0
"""A plan as text: one line per kernel step, then totals. Sizes show the batch as B."""

from __future__ import annotations

from hotloop.compile.kernels import EXTENTS, family
from hotloop.compile.memory import buffer_bytes, lifetimes, lower_bound
from hotloop.compile.plan import ARENA_KINDS, Operand, Plan, Step
from hotloop.graph import Affine


def explain(plan: Plan) -> str:
    """A readable table of the plan.

    Each line: number, kernel, the op it came from, floating-point operations and bytes touched at
    ``max_rows``, and the operands as ``field=name[elements]``, in the arena with ``@offset`` in bytes.
    """
    lines = [f"{plan.mode} plan, {plan.dtype}, up to {plan.max_rows} rows (B)"]
    lines += [f"  input {name}: {_buffer(plan, buffer)}" for name, buffer in plan.inputs]
    lines += [f"  output {name}: {_buffer(plan, buffer)}" for name, buffer in plan.outputs]
    kernel = max((len(step.kernel) for step in plan.steps), default=0)
    note = max((len(step.note) for step in plan.steps), default=0)
    for name, begin, end in plan.sections:
        lines.append(f"{name}")
        for index in range(begin, end):
            lines += [f" {stage.kind}" for stage in plan.stages if stage.begin == index]
            step = plan.steps[index]
            flops = _count(step.flops.at(plan.max_rows)) if step.flops != Affine() else "-"
            lines.append(
                f"  {index:3d}  {step.kernel:{kernel}}  {step.note:{note}}  {flops:>7} flop  "
                f"{_count(touched_bytes(plan, step)):>7}B  {_operands(plan, step)}"
            )
    return "\n".join([*lines, *_totals(plan)])


def _totals(plan: Plan) -> list[str]:
    lives = list(lifetimes(plan).values())
    bound = lower_bound(lives)
    ratio = f", {plan.arena_bytes / bound:.2f} of the least possible without reuse in place" if bound else ""
    own = (b for b in plan.buffers if b.kind == "parameter" and not b.name.startswith("parameter["))
    parameters = sum(b.size.const for b in own)
    return [
        "totals",
        f"  parameters  {parameters:,}",
        f"  arena       {plan.arena_bytes / 1e6:.3f} MB{ratio}",
        f"  FLOPs       {_count(plan.flops.at(plan.max_rows))} per step of {plan.max_rows} rows, "
        f"{_count(plan.flops.per_row)} per row"
        + (f" + {_count(plan.flops.const)}" if plan.flops.const else ""),
    ]


def _operands(plan: Plan, step: Step) -> str:
    return " ".join(f"{name}={_operand(plan, v)}" for name, v in step.fields if isinstance(v, Operand))


def _operand(plan: Plan, operand: Operand) -> str:
    return _buffer(plan, operand.buffer) + (f"+{operand.offset}" if operand.offset else "")


def _buffer(plan: Plan, buffer: int) -> str:
    entry = plan.buffers[buffer]
    place = f"@{entry.offset}" if entry.kind in ARENA_KINDS else ""
    return f"{entry.name}[{entry.size!r}]{place}"


def touched_bytes(plan: Plan, step: Step) -> int:
    """Bytes of all operands, each counted once as far as the kernel reaches."""
    spans = EXTENTS.get(family(step.kernel), {})
    dims = {
        n: v.at(plan.max_rows) if isinstance(v, Affine) else v
        for n, v in step.fields
        if isinstance(v, (Affine, int))
    }
    total = 0
    for name, value in step.fields:
        if isinstance(value, Operand) and name in spans:
            whole = buffer_bytes(plan, value.buffer, plan.max_rows)
            elements = plan.buffers[value.buffer].size.at(plan.max_rows)
            total += spans[name](dims) * whole // max(elements, 1)
    return total


def _count(n: float) -> str:
    """1234567 -> 1.23M"""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g}{unit}"
    return f"{n:g}"
