# SPDX-License-Identifier: Apache-2.0
"""A compiled plan made ready to run: on this computer's processors, or on a device.

Both kinds answer the same calls, so that whoever trains, evaluates or predicts need not know where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.compile.plan import Operand, Plan
from hotloop.graph import Affine, Graph

Array = NDArray[Any]


class BoundPass(Protocol):
    """The epochs of one run over one source; see `_core.BoundEpoch.run`."""

    def run(
        self, epoch: int, params: Any, stop: Any, deadline_s: float | None, first_batch: int, batches: int
    ) -> tuple[int, str]: ...


class Executable(Protocol):
    """A plan, the graph it was made from, and the native program.

    program    has ``metrics``, the live totals (n,), ``nbytes`` and ``isa``
    threads    how many may run it; 1 on a device
    device     None, or the `_core.Device` it runs on
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def graph(self) -> Graph: ...

    @property
    def program(self) -> Any: ...

    @property
    def team(self) -> Any: ...

    @property
    def threads(self) -> int: ...

    @property
    def device(self) -> Any: ...

    def source(self, arrays: Mapping[str, Array]) -> Any:
        """The named arrays in the order of the plan's inputs, for `epoch` and `bind`."""
        ...

    def put(self, name: str, values: Array) -> None:
        """Fill an input with the rows of an array of its dtype."""
        ...

    def get(self, name: str, rows: int) -> Array:
        """A copy of the first rows of an input or output, flat."""
        ...

    def run(self, rows: int, begin: int, end: int, *, adaptive: bool = False, **how: Any) -> None:
        """Steps [begin, end) on what the inputs hold; ``how``: as `_core.Program.run`."""
        ...

    def epoch(self, source: Any, **how: Any) -> tuple[int, str]:
        """A pass over a source; ``how``: as `_core.run_epoch` from batch_size on."""
        ...

    def bind(self, source: Any, **how: Any) -> BoundPass:
        """The epochs of a run; ``how``: as `_core.BoundEpoch` from batch_size on."""
        ...

    def on(self, memory: Any) -> Executable:
        """The same plan on another `_core.Memory` of the same sizes, with an arena of its own."""
        ...


def _input_buffers(plan: Plan) -> list[int]:
    return [buffer for _, buffer in plan.inputs]


def _number(plan: Plan, name: str) -> int:
    return dict((*plan.inputs, *plan.outputs))[name]


@dataclass(frozen=True)
class OnCpu:
    """An `Executable` for the threads of a team; ``adaptive``: one of them may do where that is faster."""

    plan: Plan
    graph: Graph
    program: Any
    team: Any
    adaptive: bool
    device: None = None

    @property
    def threads(self) -> int:
        found: int = self.team.threads
        return found

    def source(self, arrays: Mapping[str, Array]) -> Any:
        """They are referenced, not copied."""
        return _core.Source([arrays[name] for name, _ in self.plan.inputs])

    def put(self, name: str, values: Array) -> None:
        self.program.buffer(_number(self.plan, name), len(values))[...] = values.ravel()

    def get(self, name: str, rows: int) -> Array:
        return np.array(self.program.buffer(_number(self.plan, name), rows))

    def run(self, rows: int, begin: int, end: int, *, adaptive: bool = False, **how: Any) -> None:
        self.program.run(self.team, rows, begin=begin, end=end, adaptive=adaptive and self.adaptive, **how)

    def epoch(self, source: Any, **how: Any) -> tuple[int, str]:
        found: tuple[int, str] = _core.run_epoch(
            self.program, source, self.team, inputs=_input_buffers(self.plan), adaptive=self.adaptive, **how
        )
        return found

    def bind(self, source: Any, **how: Any) -> BoundPass:
        bound: BoundPass = _core.BoundEpoch(
            self.program, source, self.team, inputs=_input_buffers(self.plan), adaptive=self.adaptive, **how
        )
        return bound

    def on(self, memory: Any) -> OnCpu:
        return replace(self, program=_core.Program(native_plan(self.plan), memory, isa=self.program.isa))


@dataclass(frozen=True)
class OnDevice:
    """An `Executable` on a device. Sources are copied there once if they fit, else piece by piece."""

    plan: Plan
    graph: Graph
    program: Any
    device: Any
    precision: str = "float32"
    team: None = None
    threads: int = 1

    def source(self, arrays: Mapping[str, Array]) -> Any:
        return _core.DeviceSource(self.device, [arrays[name] for name, _ in self.plan.inputs])

    def put(self, name: str, values: Array) -> None:
        number = _number(self.plan, name)
        dtype = np.int32 if self.plan.buffers[number].dtype == "index" else np.float32
        self.program.put(number, np.ascontiguousarray(values, dtype))

    def get(self, name: str, rows: int) -> Array:
        found: Array = self.program.get(_number(self.plan, name), rows)
        return found

    def run(self, rows: int, begin: int, end: int, *, adaptive: bool = False, **how: Any) -> None:
        self.program.run(rows, begin=begin, end=end, **how)

    def epoch(self, source: Any, **how: Any) -> tuple[int, str]:
        found: tuple[int, str] = _core.run_epoch_on_device(
            self.program, source, inputs=_input_buffers(self.plan), **how
        )
        return found

    def bind(self, source: Any, **how: Any) -> BoundPass:
        bound: BoundPass = _core.DeviceEpoch(self.program, source, inputs=_input_buffers(self.plan), **how)
        return bound

    def on(self, memory: Any) -> OnDevice:
        return replace(self, program=device_program(self.plan, memory, self.device, self.precision))


def device_program(plan: Plan, memory: Any, device: Any, precision: str) -> Any:
    """A plan's program on a device, where the memory gets a copy too. Raises `DeviceError`."""
    memory.attach(device)
    return _core.DeviceProgram(native_plan(plan), memory, device, precision=precision)


def native_plan(plan: Plan) -> Any:
    """The compiler's plan as the native executor's. Raises `InternalError` for an illegal plan."""

    def value(field: Any) -> Any:
        if isinstance(field, Operand):
            return (field.buffer, field.offset)
        return (field.per_row, field.const) if isinstance(field, Affine) else field

    ends = [b.offset // 8 + b.size.at(plan.max_rows) for b in plan.buffers if b.kind == "metric"]
    return _core.Plan(
        dtype=plan.dtype,
        max_rows=plan.max_rows,
        arena_bytes=plan.arena_bytes,
        metric_doubles=max([*ends, *(m.offset + m.size for m in plan.metrics)], default=0),
        prepare=plan.prepare,
        update=plan.update,
        constants=list(plan.constants),
        n_groups=plan.n_groups,
        n_dropout=plan.n_dropout,
        buffers=[(b.kind, b.dtype, b.size.per_row, b.size.const, b.offset) for b in plan.buffers],
        steps=[(s.kernel, {name: value(field) for name, field in s.fields}) for s in plan.steps],
        stages=[(s.kind == "rows", s.begin, s.end) for s in plan.stages],
        outputs=[buffer for _, buffer in plan.outputs],
    )
