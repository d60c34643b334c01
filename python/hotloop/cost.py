# SPDX-License-Identifier: Apache-2.0
"""What a run will cost, before it is run: counted from the plan, and timed on a copy of the memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hotloop import _core
from hotloop.compile import explain
from hotloop.data import border
from hotloop.session import native_plan

if TYPE_CHECKING:
    from hotloop.engine import Data, NativeEngine

#: Steps that are timed: enough for the clock, few enough not to be waited for.
_TIMED_STEPS = 8


@dataclass(frozen=True)
class CostPlan:
    """The cost of training on a data set.

    rows, batch_size, steps_per_epoch
    parameters         trained numbers
    flops_per_step     floating-point operations of a full batch
    flops_per_epoch    of all rows
    arena_bytes        activations, gradients by activations, scratch
    memory_bytes       parameters, gradients, moments, state
    peak_bytes         arena and memory together; the data comes on top
    seconds_per_epoch  extrapolated from a few steps that were run on a copy
    threads            how many run it
    steps              the compiled steps, as text
    """

    rows: int
    batch_size: int
    steps_per_epoch: int
    parameters: int
    flops_per_step: int
    flops_per_epoch: int
    arena_bytes: int
    memory_bytes: int
    seconds_per_epoch: float
    threads: int
    steps: str

    @property
    def peak_bytes(self) -> int:
        return self.arena_bytes + self.memory_bytes

    def __str__(self) -> str:
        return (
            f"{self.parameters} parameters, {self.rows} rows, "
            f"{self.steps_per_epoch} steps of {self.batch_size} an epoch on {self.threads} threads\n"
            f"{self.flops_per_step / 1e6:.3g} MFLOP a step, {self.flops_per_epoch / 1e9:.3g} GFLOP and "
            f"{self.seconds_per_epoch:.3g} s an epoch, {self.peak_bytes / 2**20:.3g} MiB\n{self.steps}"
        )


def cost_plan(engine: NativeEngine, data: Data, batch_size: int) -> CostPlan:
    """The cost of an epoch over ``data``; neither the model nor its optimiser's state changes."""
    session = engine.session
    exe = session.program(engine.graph, engine.train_spec(data, batch_size))
    plan, memory, layout = exe.plan, session.memory.native, session.memory.layout
    full, rest = divmod(data.rows, batch_size)
    spaces = (memory.parameters, memory.gradients, memory.moment1, memory.moment2, memory.state)
    return CostPlan(
        rows=data.rows,
        batch_size=batch_size,
        steps_per_epoch=full + bool(rest),
        parameters=sum(e.size for e in layout.entries),
        flops_per_step=plan.flops.at(batch_size),
        flops_per_epoch=full * plan.flops.at(batch_size) + (plan.flops.at(rest) if rest else 0),
        arena_bytes=plan.arena_bytes,
        memory_bytes=sum(space.nbytes for space in spaces),
        seconds_per_epoch=_seconds_per_row(engine, data, batch_size) * data.rows,
        threads=exe.team.threads,
        steps=explain(plan),
    )


def _seconds_per_row(engine: NativeEngine, data: Data, batch_size: int) -> float:
    session, sample = engine.session, slice(0, min(data.rows, _TIMED_STEPS * batch_size))
    exe = session.program(engine.graph, engine.train_spec(data, batch_size))
    copy = session.memory.allocate()
    copy.parameters[...] = session.memory.native.parameters
    copy.state[...] = session.memory.native.state
    program = _core.Program(native_plan(exe.plan), copy)
    arrays = {name: array[sample] for name, array in data.arrays.items()}
    params = session.params_table(exe.plan, engine.graph)
    seconds = []
    for _ in range(2):  # the first pass also touches the memory for the first time
        begin = time.perf_counter()
        _core.run_epoch(
            program, exe.source(arrays), exe.team, inputs=[b for _, b in exe.plan.inputs],
            batch_size=batch_size, shuffle=False, params=params,
        )  # fmt: skip
        seconds.append(time.perf_counter() - begin)
    return float(np.min(seconds)) / border.row_count(arrays)
