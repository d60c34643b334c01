# SPDX-License-Identifier: Apache-2.0
"""Run a plan slowly, in NumPy float64, with the reference of every kernel: the oracle of every backend.

Every arena buffer has an array of its own, which holds NaN before the first step that names the buffer and
after the last: a value used outside its life shows in the result. (That buffers which share bytes are never
alive together is the checker's part.) Session memory is a dict of flat float64 arrays that plans share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from hotloop.compile.layout import param_layout, state_layout
from hotloop.compile.memory import lifetimes
from hotloop.compile.plan import ARENA_KINDS, Buffer, Operand, Plan, Step
from hotloop.graph import Affine, Graph
from hotloop.reference import REFERENCES, Context

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {"real": np.float64, "index": np.int32, "double": np.float64, "int64": np.int64}
_SESSION_KINDS = ("parameter", "gradient", "moment1", "moment2", "state", "accumulated", "ema")


def session_memory(graph: Graph) -> dict[str, Array]:
    """The flat arrays that plans of this graph share, all zero: parameter, gradient, moment1, moment2,
    state, accumulated, ema (float64), counter and ema_counter (int64)."""
    size = {"state": state_layout(graph).size}
    memory: dict[str, Array] = {k: np.zeros(size.get(k, param_layout(graph).size)) for k in _SESSION_KINDS}
    counter = np.zeros(len(param_layout(graph).entries), np.int64)
    return memory | {"counter": counter, "ema_counter": np.zeros(1, np.int64)}


class Interpreter:
    """A plan and the memory it runs on.

    ``memory`` maps each kind to a flat array (see `session_memory`) and is updated in place. ``metrics`` is
    the plan's block of doubles; it adds up over runs until `reset_metrics`.
    """

    def __init__(self, plan: Plan, memory: Mapping[str, Array]) -> None:
        self.plan = plan
        self.memory = memory
        self._arena = {
            index: _poisoned(buffer, buffer.size.at(plan.max_rows))
            for index, buffer in enumerate(plan.buffers)
            if buffer.kind in ARENA_KINDS
        }
        self._dying: dict[int, list[int]] = {}
        for buffer, life in lifetimes(plan).items():
            self._dying.setdefault(life.end, []).append(buffer)
        self._constants = np.array(plan.constants, np.float64)
        self._rows = plan.max_rows
        self.reset_metrics()

    def reset_metrics(self) -> None:
        """Zero the metric block, as an epoch's start does."""
        self.metrics: Array = np.zeros(sum(metric.size for metric in self.plan.metrics))

    def run(
        self,
        rows: int,
        inputs: Mapping[str, Array],
        *,
        section: str | None = None,
        begin: int = 0,
        end: int | None = None,
        seed: int = 0,
        run: int = 0,
        step: int = 0,
        params: Array | None = None,
        first: bool = True,
        last: bool = True,
    ) -> dict[str, Array]:
        """Run the steps [begin, end), or one section, on a batch of ``rows``.

        ``inputs`` are arrays by name, of any shape with the right number of elements. ``params`` is the row
        of step parameters: lr and weight decay of each group, then p of each dropout layer. ``first`` and
        ``last`` place the batch among those that share an update. Returns the plan's outputs, flat, as far as
        they have been computed.
        """
        plan = self.plan
        if not 1 <= rows <= plan.max_rows:
            raise ValueError(f"[interpret] rows must lie in 1 ... {plan.max_rows}, got {rows}")
        if section is not None:
            begin, end = plan.section(section)
        end = len(plan.steps) if end is None else end
        self._rows = rows
        self._fill_inputs(inputs)
        context = replace(self._context(params, seed, run, step), first=first, last=last)
        for index in range(begin, end):
            self._run_step(plan.steps[index], context)
            for buffer in self._dying.get(index, ()):
                _poison(self._arena[buffer])
        return {name: self._view(Operand(buffer)).copy() for name, buffer in plan.outputs}

    def metric(self, name: str) -> Array:
        """The doubles of one statistic."""
        entry = next(m for m in self.plan.metrics if m.name == name)
        found: Array = self.metrics[entry.offset : entry.offset + entry.size].copy()
        return found

    def _fill_inputs(self, inputs: Mapping[str, Array]) -> None:
        for name, buffer in self.plan.inputs:
            if name in inputs:
                self._view(Operand(buffer))[:] = np.asarray(inputs[name]).reshape(-1)

    def _context(self, params: Array | None, seed: int, run: int, step: int) -> Context:
        plan = self.plan
        row = (
            np.zeros(2 * plan.n_groups + plan.n_dropout) if params is None else np.asarray(params, np.float64)
        )
        groups, dropout = row[: 2 * plan.n_groups].reshape(-1, 2), row[2 * plan.n_groups :]
        return Context(seed=seed, run=run, step=step, groups=groups, dropout=tuple(dropout))

    def _run_step(self, step: Step, context: Context) -> None:
        fields: dict[str, Any] = {}
        for name, value in step.fields:
            if isinstance(value, Operand):
                fields[name] = self._view(value)
            else:
                fields[name] = value.at(self._rows) if isinstance(value, Affine) else value
        with np.errstate(all="ignore"):
            REFERENCES[step.kernel](SimpleNamespace(**fields), context)

    def _view(self, operand: Operand) -> Array:
        """From the operand to the end of its buffer at the present number of rows."""
        buffer = self.plan.buffers[operand.buffer]
        size = buffer.size.at(self._rows)
        if buffer.kind in ARENA_KINDS:
            return self._arena[operand.buffer][operand.offset : size]
        if buffer.kind == "metric":
            memory, width = self.metrics, 8
        elif buffer.kind == "constant":
            memory, width = self._constants, self._real_bytes()
        else:
            memory, width = self.memory[buffer.kind], 8 if buffer.dtype == "int64" else self._real_bytes()
        start = buffer.offset // width
        return memory[start + operand.offset : start + size]

    def _real_bytes(self) -> int:
        return {"float32": 4, "float64": 8}[self.plan.dtype]


def interpret(
    plan: Plan, memory: Mapping[str, Array], inputs: Mapping[str, Array], rows: int, **run: Any
) -> dict[str, Array]:
    """Run a whole plan once; see `Interpreter.run`."""
    return Interpreter(plan, memory).run(rows, inputs, **run)


def _poisoned(buffer: Buffer, size: int) -> Array:
    array: Array = np.zeros(size, _DTYPES[buffer.dtype])
    _poison(array)
    return array


def _poison(array: Array) -> None:
    array[:] = np.nan if array.dtype == np.float64 else np.iinfo(array.dtype).min
