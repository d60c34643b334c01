# SPDX-License-Identifier: Apache-2.0
"""The numbers of one model in native memory: flat buffers, and the names and shapes of what lies in them.

The module's arrays lie in the flat buffers, so that nothing is copied back after training. The module stays
the source of truth: `take_over` copies in, and binds, whatever its owner assigned meanwhile. Views of the
parameters are loans: as long as one exists, what was packed from them is packed again before each use.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.compile import param_layout, state_layout
from hotloop.compile.plan import ParamEntry
from hotloop.errors import GraphError
from hotloop.graph import Graph

if TYPE_CHECKING:
    from hotloop.nn import Module
    from hotloop.optim import Optimizer

Array = NDArray[Any]

CHANGED = "[{}] the model has other parameters than when it was first used; make a new Trainer or TrainStep"


@dataclass
class Snapshot:
    """Copies of everything that training changes: parameters, state, moments and counters in ``native``, and
    how many batches each BatchNorm has seen."""

    native: _core.Memory
    batches_tracked: tuple[int, ...]


@dataclass
class _Count:
    """Stands for a BatchNorm's count in a copy of the memory."""

    data: Array


def _lend(native: _core.Memory, space: str, entry: ParamEntry) -> Array:
    """A view of one parameter or state. The memory counts those of parameters as long as they exist."""
    flat: Array = getattr(native, space)
    return flat[entry.offset : entry.offset + entry.size].reshape(entry.shape)


class ModelMemory:
    """Parameters, gradients, moments, state and step counters of one module and one optimiser.

    ``native`` is the native object, ``layout`` and ``states`` say where each parameter and state lies.
    """

    def __init__(self, module: Module, graph: Graph, optimizer: Optimizer, *, seed: int, dtype: str) -> None:
        self.module = module
        self.optimizer = optimizer
        self.seed = seed
        self.dtype = dtype
        self.layout = param_layout(graph)
        self._frozen: frozenset[str] = frozenset()
        self.states = state_layout(graph)
        self.native = self.allocate()
        self._lenders = self._make_lenders()
        self.find_owners("session")
        self.take_over()

    def detached(self) -> ModelMemory:
        """A copy that no module is bound to: what is trained in it, nobody else sees."""
        twin = copy.copy(self)
        twin.native = self.allocate()
        twin.native.copy_from(self.native)
        twin._lenders, twin._bound = twin._make_lenders(), []
        twin._trackers = {name: _Count(tracker.data.copy()) for name, tracker in self._trackers.items()}
        return twin

    def _make_lenders(self) -> dict[str, Any]:
        return {name: partial(_lend, self.native, space, entry) for name, space, entry in self._places()}

    def allocate(self, *, gradients: bool = True) -> _core.Memory:
        """Fresh native memory of the same sizes, all zero; what is only stored needs no gradients."""
        return _core.Memory(
            parameters=self.layout.size,
            state=self.states.size,
            counters=len(self.layout.entries),
            moments=self.optimizer.n_moments,
            dtype=self.dtype,
            gradients=gradients,
        )

    def _named(self, native: _core.Memory) -> dict[str, Array]:
        """Views of the parameters and states in such a memory."""
        return {name: _lend(native, space, e) for name, space, e in self._places()}

    def _places(self) -> Iterator[tuple[str, str, ParamEntry]]:
        """Where each parameter and state lies: its name, the space, and the place in it."""
        for part, space in ((self.layout, "parameters"), (self.states, "state")):
            for entry in part.entries:
                yield entry.name, space, entry

    def check_layout(self, graph: Graph, where: str) -> None:
        """Raises `GraphError` unless a graph's parameters and states lie where ours do."""
        if param_layout(graph) != self.layout or state_layout(graph) != self.states:
            raise GraphError(CHANGED.format(where))

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients of the last backward pass, by the name of each trained parameter."""
        views = self.by_parameter(self.native.gradients)
        return {name: view.copy() for name, view in views if name not in self._frozen}

    # --- what is trained ---

    def take_frozen(self, names: Iterable[str]) -> None:
        """From now on training leaves these parameters alone: their gradients are 0, and a BatchNorm that is
        frozen as a whole counts no batches."""
        frozen = frozenset(names)
        if frozen != self._frozen:
            for name, gradient in self.by_parameter(self.native.gradients):
                if name in frozen:
                    gradient[...] = 0
            self._frozen = frozen

    def ages(self, frozen: Iterable[str] = ()) -> tuple[tuple[str, int], ...]:
        """(name, class) of the trained parameters that have not taken as many steps as the first of them;
        those of one class have taken equally many."""
        counts = self.native.counters
        if not len(counts) or (counts == counts[0]).all():
            return ()
        left_out = set(frozen)
        trained = [
            (e.name, int(n))
            for e, n in zip(self.layout.entries, counts, strict=True)
            if e.name not in left_out
        ]
        classes: dict[int, int] = {}
        numbered = [(name, classes.setdefault(n, len(classes))) for name, n in trained]
        return tuple((name, age) for name, age in numbered if age)

    def by_parameter(self, flat: Array) -> Iterator[tuple[str, Array]]:
        """Views of a flat array, (parameters,), by the names and in the shapes of the parameters."""
        for e in self.layout.entries:
            yield e.name, flat[e.offset : e.offset + e.size].reshape(e.shape)

    def read_only(self, space: str) -> Mapping[str, Array]:
        """Views of the "parameters" or "gradients" by name, of which none can be made writable."""
        flat: Array = getattr(self.native, space)
        flat.flags.writeable = False
        return MappingProxyType(
            {e.name: flat[e.offset : e.offset + e.size].reshape(e.shape) for e in self.layout.entries}
        )

    def find_owners(self, where: str) -> None:
        """Pair every place in the flat memory with the parameter or buffer of its name."""
        self.module.initialize(self.seed, overwrite=False)
        buffers = dict(self.module.named_buffers())
        owners: dict[str, Any] = {**dict(self.module.named_parameters()), **buffers}
        entries = (*self.layout.entries, *self.states.entries)
        if any(e.name not in owners or owners[e.name].shape != e.shape for e in entries):
            raise GraphError(CHANGED.format(where))
        self._bound = [(owners[name], lender) for name, lender in self._lenders.items()]
        self._trackers: dict[str, Any] = {
            name: b for name, b in buffers.items() if name.endswith("num_batches_tracked")
        }

    def take_over(self) -> None:
        """Copy in, and bind to our memory, every array of the module that does not lie in it."""
        for owner, lender in self._bound:
            if not owner.is_bound_to(lender):
                lender()[...] = owner.data
                owner.bind(lender)

    def snapshot(self, into: Snapshot | None = None) -> Snapshot:
        """Copy everything that training changes; into an older snapshot if one is given."""
        if into is None:
            into = Snapshot(self.allocate(gradients=False), ())
        into.native.copy_from(self.native)
        into.batches_tracked = tuple(int(t.data) for t in self._trackers.values())
        return into

    def restore(self, snapshot: Snapshot) -> None:
        """Put everything back to what it was."""
        self.native.copy_from(snapshot.native)
        for tracker, count in zip(self._trackers.values(), snapshot.batches_tracked, strict=True):
            tracker.data[...] = count

    def tensors(self, snapshot: Snapshot | None = None) -> tuple[dict[str, Array], dict[str, Array]]:
        """What a snapshot (None: the memory itself) holds, by name: the model's tensors, and the optimiser's
        state. They are views, but for BatchNorm's counts."""
        native = self.native if snapshot is None else snapshot.native
        counts = snapshot.batches_tracked if snapshot else [t.data for t in self._trackers.values()]
        tracked = {name: np.array(n, np.int64) for name, n in zip(self._trackers, counts, strict=True)}
        return {**self._named(native), **tracked}, self._optimizer_views(native)

    def snapshot_of(self, model: Mapping[str, Array], optimizer: Mapping[str, Array]) -> Snapshot:
        """A snapshot of what `tensors` gave. Raises `ValueError` if something is missing or does not fit."""
        native = self.allocate(gradients=False)
        counts = {name: np.zeros((), np.int64) for name in self._trackers}
        views = {**self._named(native), **counts}
        for given, wanted in ((model, views), (optimizer, self._optimizer_views(native))):
            for name, view in wanted.items():
                value = given.get(name)
                if value is None or value.shape != view.shape or value.dtype != view.dtype:
                    found = "is missing" if value is None else f"is {value.dtype} {value.shape}"
                    raise ValueError(f"{name!r} {found}; expected {view.dtype} {view.shape}")
                view[...] = value
        return Snapshot(native, tuple(int(count) for count in counts.values()))

    def is_finite(self) -> bool:
        """Whether no parameter and no state is NaN or infinite."""
        return self.native.is_finite()

    def reset_optimizer(self) -> None:
        """Moments and step counters to zero."""
        for space in (*self._moments(self.native), self.native.counters):
            space[...] = 0

    def _moments(self, native: _core.Memory) -> tuple[Array, ...]:
        return (native.moment1, native.moment2)[: self.optimizer.n_moments]

    def batch_counters(self) -> tuple[Array, ...]:
        """BatchNorm's num_batches_tracked, int64 (), one array for each layer that is not frozen."""
        frozen = self._frozen
        return tuple(t.data for name, t in self._trackers.items() if not (frozen and self._is_still(name)))

    def _is_still(self, tracker: str) -> bool:
        """Whether a BatchNorm is frozen as a whole; see compile/specialize.py."""
        affine = {tracker.removesuffix("num_batches_tracked") + part for part in ("weight", "bias")}
        own = [entry.name for entry in self.layout.entries if entry.name in affine]
        return bool(own) and self._frozen.issuperset(own)

    def count_batches(self, steps: int) -> None:
        """Advance BatchNorm's num_batches_tracked, which no kernel touches."""
        for counter in self.batch_counters():
            counter += steps

    # --- the optimiser's state, under torch's names ---

    def optimizer_state(self) -> dict[str, Array]:
        """Copies: "{param}.{moment}" in the parameter's shape, and "{param}.step" as int64 (), how many
        updates it has had. All 0 for a parameter that was never trained."""
        return {key: value.copy() for key, value in self._optimizer_views(self.native).items()}

    def load_optimizer_state(self, state: Mapping[str, Any], where: str) -> None:
        """Take over what `optimizer_state` gave. Raises `ValueError` if a key or shape does not fit."""
        views = self._optimizer_views(self.native)
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

    def adopt_optimizer(self, other: ModelMemory) -> None:
        """Take over moments and counters of another memory, of each parameter for which both have the same."""
        views, given = self._optimizer_views(self.native), other._optimizer_views(other.native)
        for entry in self.layout.entries:
            keys = [f"{entry.name}.{name}" for name in (*self.optimizer.state_names, "step")]
            if all(key in given and given[key].shape == views[key].shape for key in keys):
                for key in keys:
                    views[key][...] = given[key]

    def _optimizer_views(self, native: _core.Memory) -> dict[str, Array]:
        views: dict[str, Array] = {}
        for at, e in enumerate(self.layout.entries):
            for name, flat in zip(self.optimizer.state_names, self._moments(native), strict=True):
                views[f"{e.name}.{name}"] = flat[e.offset : e.offset + e.size].reshape(e.shape)
            views[f"{e.name}.step"] = native.counters[at : at + 1].reshape(())
        return views
