# SPDX-License-Identifier: Apache-2.0
"""A session: one module's numbers in native memory, and the programs that run on them.

It owns the flat buffers (parameters, gradients, moments, state), traces and compiles on demand, and lends the
module's arrays out as views of the flat buffers, so that nothing is copied back after training. The module
stays the source of truth: what its owner assigns between two calls is taken over at the next entry.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.compile import compile_plan, param_layout, state_layout
from hotloop.compile.plan import Operand, ParamLayout, Plan, PlanSpec
from hotloop.data import border
from hotloop.errors import DTypeError, GraphError, HotloopError
from hotloop.graph import Affine, Graph, TensorType
from hotloop.threads import threads_for
from hotloop.trace import trace

if TYPE_CHECKING:
    from hotloop.nn import Module
    from hotloop.optim import Optimizer

DType = Literal["float32", "float64"]
Status = Literal["done", "stopped", "time", "diverged"]
Doubles = NDArray[np.float64]

#: Programs kept per session. A run needs three (train, evaluate, predict); each holds an arena of its own.
_MAX_PROGRAMS = 8
#: Names that plans give to inputs of their own.
_RESERVED = frozenset({"target", "sample_weight", "output", "doutput"})
#: One lock per module: two sessions on one module must not run at once either.
_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()  # type: ignore[type-arg, unused-ignore]


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
        constants=list(plan.constants),
        n_groups=plan.n_groups,
        n_dropout=plan.n_dropout,
        buffers=[(b.kind, b.dtype, b.size.per_row, b.size.const, b.offset) for b in plan.buffers],
        steps=[(s.kernel, {name: value(field) for name, field in s.fields}) for s in plan.steps],
    )


@dataclass(frozen=True)
class Executable:
    """A plan, its native program, and the threads that its cost calls for."""

    plan: Plan
    program: Any
    team: Any

    def source(self, arrays: Mapping[str, border.Array]) -> Any:
        """The named arrays in the order of the plan's inputs; they are referenced, not copied."""
        return _core.Source([arrays[name] for name, _ in self.plan.inputs])

    def buffer(self, name: str, rows: int) -> Any:
        """Flat view of an input or output buffer for so many rows."""
        return self.program.buffer(dict((*self.plan.inputs, *self.plan.outputs))[name], rows)


@dataclass
class Snapshot:
    """Copies of everything that training changes: parameters, state, moments, counters."""

    arrays: tuple[border.Array, ...]
    batches_tracked: tuple[int, ...]


class Session:
    """One module, one optimiser, one flat memory.

    Raises `RuntimeError` when a second thread enters while the first is still inside.
    """

    def __init__(
        self,
        module: Module,
        optimizer: Optimizer,
        *,
        seed: int,
        threads: int | None,
        dtype: DType = "float32",
    ) -> None:
        if seed >= 2**64:
            raise ValueError(f"[session] seed must be below 2**64, got {seed}")
        self.module = module
        self.optimizer = optimizer
        self.seed = seed
        self.threads = threads
        self.dtype = dtype
        self.real = np.dtype(dtype)
        self.graph: Graph | None = None  # the first one; every other has the same parameters
        self.layout: ParamLayout | None = None
        self.memory: Any = None
        self._graphs: dict[tuple[Any, ...], Graph] = {}
        self._programs: OrderedDict[tuple[Graph, PlanSpec, int | None], Executable] = OrderedDict()
        self._teams: dict[int, Any] = {}
        self._lock = _LOCKS.setdefault(module, threading.RLock())

    # --- entering ---

    @contextmanager
    def entered(self, where: str) -> Iterator[None]:
        """Held while the module is in use; takes over what was assigned to it since the last time."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                f"[{where}] this model is in use in another thread; "
                "wait for it, or give each thread a model of its own"
            )
        try:
            if self.memory is not None:
                self._take_over()
            yield
        finally:
            self._lock.release()

    def graph_for(self, arrays: border.Arrays, where: str) -> Graph:
        """The graph for inputs of these names, row shapes and kinds; traced at the first use."""
        key = tuple((name, a.dtype.str, a.shape[1:]) for name, a in arrays.items())
        if key not in self._graphs:
            graph = self._trace(arrays, where)
            self._check_layout(graph, where)
            self._graphs[key] = graph
        graph = self._graphs[key]
        self.open(graph)
        return graph

    def open(self, graph: Graph) -> None:
        """Allocate the flat memory for a graph's parameters and move the module's arrays into it, once."""
        if self.memory is None:
            self.graph = graph
            self._allocate(graph)

    def _trace(self, arrays: border.Arrays, where: str) -> Graph:
        reserved = _RESERVED & arrays.keys()
        if reserved:
            raise GraphError(f"[{where}] an input may not be named {sorted(reserved)[0]!r}; rename it")
        first: HotloopError | None = None
        for types in border.candidate_types(arrays, where):
            try:
                return self._trace_types(types)
            except HotloopError as error:
                # The first complaint that is not about element types tells most.
                if first is None or (isinstance(first, DTypeError) and not isinstance(error, DTypeError)):
                    first = error
        assert first is not None  # there is at least one candidate
        raise first from None

    def _trace_types(self, types: Mapping[str, TensorType]) -> Graph:
        graph = trace(self.module, types)
        border.row_shape(graph.types[graph.output])
        return graph

    def _check_layout(self, graph: Graph, where: str) -> None:
        if self.layout is not None and param_layout(graph, self.optimizer.spec().decay) != self.layout:
            raise GraphError(
                f"[{where}] the model has other parameters now than when it was first used; "
                "make a new Trainer or TrainStep for it"
            )

    # --- memory ---

    def _allocate(self, graph: Graph) -> None:
        layout = param_layout(graph, self.optimizer.spec().decay)
        states = state_layout(graph)
        self.memory = _core.Memory(
            parameters=layout.size,
            state=states.size,
            counters=len(layout.segments),
            moments=self.optimizer.n_moments,
            dtype=self.dtype,
        )
        self.layout, self.states = layout, states
        self.module.initialize(self.seed, overwrite=False)
        parameters, buffers = dict(self.module.named_parameters()), dict(self.module.named_buffers())
        self._bound: list[tuple[Any, border.Array]] = []
        for entries, flat, owners in (
            (layout.entries, self.memory.parameters, parameters),
            (states.entries, self.memory.state, buffers),
        ):
            for e in entries:
                view = flat[e.offset : e.offset + e.size].reshape(e.shape)
                self._bound.append((owners[e.name], view))
        self._trackers = [b for name, b in buffers.items() if name.endswith("num_batches_tracked")]
        self._take_over()

    def _take_over(self) -> None:
        """Copy in, and bind to our memory, every array of the module that is not a view of it."""
        for owner, view in self._bound:
            if owner.data is not view:
                view[...] = owner.data
                owner.bind(view)

    def snapshot(self, into: Snapshot | None = None) -> Snapshot:
        """Copy everything that training changes; into the arrays of an older snapshot if one is given."""
        spaces = self._spaces()
        if into is None:
            into = Snapshot(tuple(np.empty_like(s) for s in spaces), ())
        for copy, space in zip(into.arrays, spaces, strict=True):
            np.copyto(copy, space)
        into.batches_tracked = tuple(int(t.data) for t in self._trackers)
        return into

    def restore(self, snapshot: Snapshot) -> None:
        """Put everything back to what it was."""
        for copy, space in zip(snapshot.arrays, self._spaces(), strict=True):
            np.copyto(space, copy)
        for tracker, count in zip(self._trackers, snapshot.batches_tracked, strict=True):
            tracker.data[...] = count

    def is_finite(self) -> bool:
        """Whether no parameter and no state is NaN or infinite."""
        # A sum in double cannot overflow from floats, and is not finite if any element is not.
        with np.errstate(over="ignore", invalid="ignore"):
            sums = [s.sum(dtype=np.float64) for s in (self.memory.parameters, self.memory.state)]
        return bool(np.isfinite(sums).all())

    def reset_optimizer(self) -> None:
        """Moments and step counters to zero."""
        for space in (*self._moments(), self.memory.counters):
            space[...] = 0

    def _spaces(self) -> tuple[border.Array, ...]:
        m = self.memory
        return (m.parameters, m.state, *self._moments(), m.counters)

    def _moments(self) -> tuple[border.Array, ...]:
        return (self.memory.moment1, self.memory.moment2)[: self.optimizer.n_moments]

    def count_batches(self, steps: int) -> None:
        """Advance BatchNorm's num_batches_tracked, which no kernel touches."""
        for tracker in self._trackers:
            tracker.data[...] += steps

    # --- the optimiser's state, under torch's names ---

    def optimizer_state(self) -> dict[str, border.Array]:
        """Copies: "{param}.{moment}" in the parameter's shape, and "{param}.step" as int64 ()."""
        return {key: value.copy() for key, value in self._optimizer_views().items()}

    def load_optimizer_state(self, state: Mapping[str, Any], where: str) -> None:
        """Take over what `optimizer_state` gave. Raises `ValueError` if a key or shape does not fit."""
        views = self._optimizer_views()
        if state.keys() != views.keys():
            odd = sorted(state.keys() ^ views.keys())
            raise ValueError(
                f"[{where}] the optimizer's state does not fit: {odd[0]!r} is missing or unexpected"
            )
        arrays = {key: np.asarray(value) for key, value in state.items()}
        for key, view in views.items():
            if arrays[key].shape != view.shape or arrays[key].dtype.kind not in "iuf":
                raise ValueError(
                    f"[{where}] {key!r} has shape {arrays[key].shape} and dtype {arrays[key].dtype}; "
                    f"expected {view.shape} and {view.dtype}"
                )
        for key, view in views.items():
            view[...] = arrays[key]

    def _optimizer_views(self) -> dict[str, border.Array]:
        assert self.layout is not None  # callers allocate first
        counter = {group: i for i, (group, _, _) in enumerate(self.layout.segments)}
        views: dict[str, border.Array] = {}
        for e in self.layout.entries:
            for name, flat in zip(self.optimizer.state_names, self._moments(), strict=True):
                views[f"{e.name}.{name}"] = flat[e.offset : e.offset + e.size].reshape(e.shape)
            at = counter[e.group]
            views[f"{e.name}.step"] = self.memory.counters[at : at + 1].reshape(())
        return views

    # --- programs ---

    def program(self, graph: Graph, spec: PlanSpec) -> Executable:
        """The compiled program of a graph for a purpose; kept for the next time."""
        key = (graph, spec, self.threads)
        if key in self._programs:
            self._programs.move_to_end(key)
            return self._programs[key]
        plan = compile_plan(graph, spec)
        isa = "generic" if self.dtype == "float64" else ""  # only that unit has float64
        program = _core.Program(native_plan(plan), self.memory, isa=isa)
        executable = Executable(plan, program, self._team(threads_for(plan, self.threads)))
        self._programs[key] = executable
        if len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return executable

    def _team(self, threads: int) -> Any:
        if threads not in self._teams:
            self._teams[threads] = _core.Team(threads)
        return self._teams[threads]

    def params_table(
        self, plan: Plan, graph: Graph, factors: Doubles | Sequence[float] = (0.0,), lr: float | None = None
    ) -> Doubles:
        """What varies by step: (n_steps, 2*n_groups + n_dropout), one row per factor of the learning rate.

        Row: learning rate and weight decay of each group, then p of each dropout layer. Group 1 is never
        decayed: it holds biases and norms where the optimiser says decay="weights".
        """
        scale = np.asarray(factors, dtype=np.float64) * (self.optimizer.lr if lr is None else lr)
        table = np.zeros((len(scale), 2 * plan.n_groups + plan.n_dropout))
        for group in range(plan.n_groups):
            table[:, 2 * group] = scale
            table[:, 2 * group + 1] = self.optimizer.weight_decay if group == 0 else 0.0
        if plan.n_dropout:
            for node in graph.nodes:
                if node.op == "dropout":
                    table[:, 2 * plan.n_groups + node.attr["layer"]] = node.attr["p"]
        return table

    def run_epoch(
        self, executable: Executable, source: Any, *, batch_size: int, params: Doubles, run: int = 0,
        epoch: int = 0, step: int = 0, shuffle: bool = False, section: str | None = None,
        outputs: Sequence[tuple[int, border.Array]] = (), stop: Any = None, deadline_s: float | None = None,
        check_finite: bool = False,
    ) -> tuple[int, Status]:  # fmt: skip
        """One native pass over a source: (steps done, "done" | "stopped" | "time" | "diverged")."""
        plan = executable.plan
        begin, end = plan.section(section) if section else (0, len(plan.steps))
        steps, status = _core.run_epoch(
            executable.program, source, executable.team,
            inputs=[buffer for _, buffer in plan.inputs], batch_size=batch_size, shuffle=shuffle,
            seed=self.seed, run=run, epoch=epoch, step=step, params=params, begin=begin, end=end,
            outputs=list(outputs), stop=stop, deadline_s=deadline_s, check_finite=check_finite,
        )  # fmt: skip
        if plan.mode == "train":
            self.count_batches(steps)
        return steps, cast(Status, status)
