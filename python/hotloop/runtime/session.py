# SPDX-License-Identifier: Apache-2.0
"""A session: one module, its memory, and the programs that run on it.

It traces and compiles on demand, keeps what it compiled, decides on threads, and lets one thread in at a time.
What the module's owner changes between two calls is taken over at the next entry.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.compile import compile_plan
from hotloop.compile.plan import Plan, PlanSpec, TrainableSpec
from hotloop.data import border
from hotloop.errors import DTypeError, GraphError, HotloopError
from hotloop.graph import Graph, TensorType
from hotloop.nn.parameter import edit_count
from hotloop.runtime import device
from hotloop.runtime.executable import Executable, OnCpu, OnDevice, device_program, native_plan
from hotloop.runtime.grouping import Grouping, fill_groups, group
from hotloop.runtime.memory import ModelMemory
from hotloop.runtime.threads import chosen_threads, threads_for
from hotloop.trace import trace

if TYPE_CHECKING:
    from hotloop.freeze_plan import FreezePlan
    from hotloop.nn import Module
    from hotloop.optim import Optimizer

DType = Literal["float32", "float64"]
Status = Literal["done", "stopped", "time", "diverged", "paused"]
Doubles = NDArray[np.float64]

#: Rows per batch of evaluation and prediction: 256 fill the kernels' tiles, and keep the arena of common
#: networks within a level-2 cache; a GPU wants a few blocks of threads for each of its multiprocessors.
EVAL_ROWS, DEVICE_EVAL_ROWS = 256, 2048
#: Programs kept per session. A run needs three (train, evaluate, predict); each holds an arena of its own.
_MAX_PROGRAMS = 8
#: Names that plans give to inputs of their own.
_RESERVED = frozenset({"target", "sample_weight", "output", "doutput"})
#: One lock per module: two sessions on one module must not run at once either.
_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()


def _differs(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether an attribute was set to something else; what is not a plain number or text by identity."""
    if now.keys() != then.keys():
        return True
    plain = (int, float, str)
    pairs = zip(now.values(), then.values(), strict=True)
    return any(a is not b and not (isinstance(a, plain) and a == b) for a, b in pairs)


class Entry:
    """The `with` statement of `Session.entered`. A class, because a generator would cost a microsecond."""

    __slots__ = ("_session", "_where")

    def __init__(self, session: Session, where: str) -> None:
        self._session = session
        self._where = where

    def __enter__(self) -> None:
        lock = self._session.lock
        if not lock.acquire(blocking=False):
            raise RuntimeError(
                f"[{self._where}] this model is in use in another thread; "
                "wait for it, or give each thread a model of its own"
            )
        try:
            self._session.notice_changes(self._where)
        except BaseException:
            lock.release()
            raise

    def __exit__(self, *error: object) -> None:
        self._session.lock.release()


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
        may_move: bool = False,
        where: device.Kind = "cpu",
        precision: device.Precision = "float32",
    ) -> None:
        if seed >= 2**64:
            raise ValueError(f"[session] seed must be below 2**64, got {seed}")
        self.module = module
        self.optimizer = optimizer
        self.seed = seed
        self.threads = threads
        self.dtype = dtype
        self.real = np.dtype(dtype)
        #: Whether a model that has other parameters than before may get memory anew: nobody holds views of it.
        self.may_move = may_move
        #: Where programs run; see `place`.
        self.kind: device.Kind = "cpu"
        self.precision = precision
        self._edited = False  # since the memory was made
        self._graph: Graph | None = None  # the first one; every other has the same parameters
        self._memory: ModelMemory | None = None
        self._former: ModelMemory | None = None  # the one before, until there is another
        self._graphs: dict[tuple[Any, ...], Graph] = {}
        self._programs: OrderedDict[tuple[int, PlanSpec, int | None], Executable] = OrderedDict()
        self._teams: dict[int, Any] = {}
        #: Calls that may be repeated without Python's border, by purpose; see direct.py.
        self.direct: dict[str, list[tuple[Any, Executable]]] = {}
        self._seen: tuple[int, int | None] | None = None  # edits and threads when last looked at
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.lock = _LOCKS.setdefault(module, threading.RLock())
        self.place(where)

    def place(self, kind: device.Kind) -> None:
        """Run from now on there. A device is opened, and the numbers go there, when a program is made."""
        if kind == self.kind:
            return
        self.kind = kind
        self._programs.clear()
        self.direct.clear()

    @property
    def eval_rows(self) -> int:
        """Rows per batch of evaluation and prediction. The results of a row do not depend on it."""
        return EVAL_ROWS if self.kind == "cpu" else DEVICE_EVAL_ROWS

    # --- entering ---

    def entered(self, where: str) -> Entry:
        """Held while the module is in use; takes over what was assigned to it since the last time."""
        return Entry(self, where)

    @property
    def is_current(self) -> bool:
        """Whether no model and no choice of threads was changed since `notice_changes`."""
        return self._seen == (edit_count(), chosen_threads())

    def notice_changes(self, where: str) -> None:
        """Trace anew if the module's attributes changed, and take over arrays that are not ours yet."""
        if self.is_current:
            return
        self.direct.clear()
        if not self._tables or any(_differs(table, copy) for table, copy in self._tables):
            self._forget(where)
        if self._memory is not None:
            self._memory.take_over()
        self._seen = edit_count(), chosen_threads()

    def _forget(self, where: str) -> None:
        self._graphs.clear()
        self._programs.clear()
        modules = [module for _, module in self.module.named_modules()]
        tables = [t for m in modules for t in (vars(m), m._modules, m._parameters, m._buffers)]
        self._edited = True
        if self._memory is not None:
            try:
                self._memory.find_owners(where)
            except GraphError:
                if not self.may_move:
                    raise
                self._drop_memory()
        self._tables = [(table, dict(table)) for table in tables]

    def graph_for(self, arrays: border.Arrays, where: str) -> Graph:
        """The graph for inputs of these names, row shapes and kinds; traced at the first use."""
        key = tuple((name, a.dtype.str, a.shape[1:]) for name, a in arrays.items())
        if key not in self._graphs:
            self._graphs[key] = self._take(self._trace(arrays, where), where)
        graph = self._graphs[key]
        self.open(graph)
        return graph

    def _take(self, graph: Graph, where: str) -> Graph:
        """The graph, if the memory fits it; where the model was edited since, the next memory will."""
        if self._memory is not None:
            try:
                self._memory.check_layout(graph, where)
            except GraphError:
                if not (self.may_move and self._edited):
                    raise
                self._drop_memory()
        if self._edited:
            self._graph, self._edited = graph, False
        return graph

    def _drop_memory(self) -> None:
        """Memory is made anew at the next use; what is the same then keeps its optimiser's state."""
        self._former, self._memory = self._memory, None
        self._programs.clear()
        self.direct.clear()

    @property
    def graph(self) -> Graph | None:
        """A graph of the model as it is now; None before its first use. Raises what tracing raises."""
        if self._graph is not None and self._edited:
            # for the inputs that it had before
            types = {name: self._graph.types[value] for name, value in self._graph.inputs}
            self.open(self._take(self._trace_types(types), "session"))
        return self._graph

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Go on with another optimiser. Moments of the same names stay; others begin at zero."""
        self.optimizer = optimizer
        if self._memory is not None:
            assert self._graph is not None  # there is memory, so there was a graph
            self._drop_memory()
            self.open(self._graph)

    def open(self, graph: Graph) -> None:
        """Allocate the flat memory for a graph's parameters and move the module's arrays into it, once."""
        if self._memory is None:
            self._memory = ModelMemory(self.module, graph, self.optimizer, seed=self.seed, dtype=self.dtype)
            self._seen = edit_count(), chosen_threads()  # moving the arrays was our own edit
            self._graph = graph
            if self._former is not None:
                self._memory.adopt_optimizer(self._former)
                self._former = None

    @property
    def memory(self) -> ModelMemory:
        """The flat memory. Raises `RuntimeError` before the first use of the model, which tells its sizes."""
        if self._memory is None:
            raise RuntimeError(
                "[session] the model has not seen data yet, so its shapes are unknown; use it once"
            )
        return self._memory

    def replica(self) -> Session:
        """A session on a copy of the memory, to try things on: graphs, compiled plans and teams are shared,
        programs and numbers are its own, and the module is not bound to it. To be used while this session is
        entered, and dropped. Raises `RuntimeError` before the first use of the model."""
        twin = copy.copy(self)
        twin._memory = self.memory.detached()
        twin._programs, twin.direct = OrderedDict(), {}
        return twin

    @property
    def program_bytes(self) -> int:
        """Native bytes of all programs that are kept."""
        return sum(int(executable.program.nbytes) for executable in self._programs.values())

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

    # --- programs ---

    def program(self, graph: Graph, spec: PlanSpec) -> Executable:
        """The compiled program of a graph for a purpose; kept for the next time."""
        # By identity: the graph is ours, and hashing a large one at every evaluation would show.
        key = (id(graph), spec, self.threads or chosen_threads())
        if spec.mode in ("train", "vjp"):
            self.memory.take_frozen(spec.trainable.frozen)
        if key in self._programs:
            self._programs.move_to_end(key)
            return self._programs[key]
        self._programs[key] = executable = self.build(graph, spec)
        if len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return executable

    def build(self, graph: Graph, spec: PlanSpec) -> Executable:
        """A program of its own for a purpose, which the session does not keep."""
        native = self.memory.native
        if self.kind != "cpu":
            there = device.open_device(self.kind, "session")
            plan = compile_plan(graph, replace(spec, spread=True, device="cuda"))
            native.reserve(accumulated=spec.accumulate, ema=spec.ema is not None)
            program = device_program(plan, native, there, self.precision)
            return OnDevice(plan, graph, program, there, self.precision)
        plan = compile_plan(graph, spec)
        threads = threads_for(plan, self.threads)
        if threads > 1:
            plan = compile_plan(graph, replace(spec, spread=True))
        native.reserve(accumulated=spec.accumulate, ema=spec.ema is not None)
        isa = "generic" if self.dtype == "float64" else ""  # only that unit has float64
        program = _core.Program(native_plan(plan), native, isa=isa)
        return OnCpu(plan, graph, program, self._team(threads), self.adaptive)

    @property
    def adaptive(self) -> bool:
        """Whether a step may run on one thread where that is faster; a number that was asked for is obeyed."""
        return self.threads is None

    def _team(self, threads: int) -> Any:
        if threads not in self._teams:
            self._teams[threads] = _core.Team(threads)
        return self._teams[threads]

    def grouping(self, plan: FreezePlan | None = None, *, epochs: int = 1, where: str = "fit") -> Grouping:
        """Which parameters a run trains, at which rates. Raises `ValueError` as `grouping.group` does."""
        ours = {entry.name for entry in self.memory.layout.entries}
        names = [name for name, _ in self.module.named_parameters() if name in ours]  # in the model's order
        frozen = set(self.module.frozen_names())
        return group(names, frozen, plan, epochs=epochs, where=where)

    def trainable(self, grouping: Grouping, epoch: int = 1) -> TrainableSpec:
        """What a training plan of an epoch is compiled for, from now on until something else has trained."""
        return grouping.spec(epoch, self.memory.ages(grouping.phase(epoch).frozen))

    def params_table(
        self, plan: Plan, graph: Graph, factors: Doubles | Sequence[float] = (0.0,), lr: float | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> Doubles:  # fmt: skip
        """What varies by step: (n_steps, 2*n_groups + n_dropout), one row per factor of the learning rate.

        Row: learning rate and weight decay of each group, then p of each dropout layer. ``scales``: further
        factors of the rate, each with groups of its own.
        """
        rates = np.asarray(factors, dtype=np.float64) * (self.optimizer.lr if lr is None else lr)
        table = np.zeros((len(rates), 2 * plan.n_groups + plan.n_dropout))
        if plan.n_groups:
            fill_groups(table, self.optimizer, scales, rates, self.optimizer.weight_decay)
        if plan.n_dropout:
            for node in graph.nodes:
                if node.op == "dropout":
                    table[:, 2 * plan.n_groups + node.attr["layer"]] = node.attr["p"]
        return table

    def run_epoch(
        self, executable: Executable, source: Any, *, batch_size: int, params: Doubles, run: int = 0,
        epoch: int = 0, step: int = 0, shuffle: bool = False, section: str | None = None,
        outputs: Sequence[tuple[int, border.Array]] = (), stop: Any = None, deadline_s: float | None = None,
        check_finite: bool = False, before: int = 0,
    ) -> tuple[int, Status]:  # fmt: skip
        """One native pass over a source, or over a piece of one that so many batches came ``before``: (steps
        done, "done" | "stopped" | "time" | "diverged")."""
        plan = executable.plan
        begin, end = plan.section(section) if section else (0, len(plan.steps))
        steps, status = executable.epoch(
            source, batch_size=batch_size, shuffle=shuffle, seed=self.seed, run=run, epoch=epoch, step=step,
            params=params, begin=begin, end=end, outputs=list(outputs), stop=stop, deadline_s=deadline_s,
            check_finite=check_finite, before=before,
        )  # fmt: skip
        if plan.mode == "train":
            self.memory.count_batches(steps)
        return steps, cast(Status, status)
