# SPDX-License-Identifier: Apache-2.0
"""The numbers of one model in native memory: flat buffers, and the names and shapes of what lies in them.

The module's arrays are views of the flat buffers, so that nothing is copied back after training. The module
stays the source of truth: `take_over` copies in, and binds, whatever its owner assigned meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.compile import param_layout, state_layout
from hotloop.errors import GraphError
from hotloop.graph import Graph

if TYPE_CHECKING:
    from hotloop.nn import Module
    from hotloop.optim import Optimizer

Array = NDArray[Any]

CHANGED = "[{}] the model has other parameters than when it was first used; make a new Trainer or TrainStep"


@dataclass
class Snapshot:
    """Copies of everything that training changes: parameters, state, moments, counters."""

    arrays: tuple[Array, ...]
    batches_tracked: tuple[int, ...]


class ModelMemory:
    """Parameters, gradients, moments, state and step counters of one module and one optimiser.

    ``native`` is the native object, ``layout`` and ``states`` say where each parameter and state lies.
    """

    def __init__(self, module: Module, graph: Graph, optimizer: Optimizer, *, seed: int, dtype: str) -> None:
        self.module = module
        self.optimizer = optimizer
        self.seed = seed
        self.dtype = dtype
        self.layout = param_layout(graph, optimizer.spec().decay)
        self.states = state_layout(graph)
        self.native = self.allocate()
        self._views = {
            e.name: flat[e.offset : e.offset + e.size].reshape(e.shape)
            for part, flat in ((self.layout, self.native.parameters), (self.states, self.native.state))
            for e in part.entries
        }
        self.find_owners("session")
        self.take_over()

    def allocate(self) -> _core.Memory:
        """Fresh native memory of the same sizes, all zero."""
        return _core.Memory(
            parameters=self.layout.size,
            state=self.states.size,
            counters=len(self.layout.segments),
            moments=self.optimizer.n_moments,
            dtype=self.dtype,
        )

    def check_layout(self, graph: Graph, where: str) -> None:
        """Raises `GraphError` unless a graph's parameters and states lie where ours do."""
        decay = self.optimizer.spec().decay
        if param_layout(graph, decay) != self.layout or state_layout(graph) != self.states:
            raise GraphError(CHANGED.format(where))

    def gradients(self) -> dict[str, Array]:
        """Copies of the gradients of the last backward pass, by parameter name."""
        flat = self.native.gradients
        return {
            e.name: flat[e.offset : e.offset + e.size].reshape(e.shape).copy() for e in self.layout.entries
        }

    def find_owners(self, where: str) -> None:
        """Pair every view of the flat memory with the parameter or buffer of its name."""
        self.module.initialize(self.seed, overwrite=False)
        buffers = dict(self.module.named_buffers())
        owners: dict[str, Any] = {**dict(self.module.named_parameters()), **buffers}
        if any(name not in owners or owners[name].shape != view.shape for name, view in self._views.items()):
            raise GraphError(CHANGED.format(where))
        self._bound = [(owners[name], view) for name, view in self._views.items()]
        self._trackers = [b for name, b in buffers.items() if name.endswith("num_batches_tracked")]

    def take_over(self) -> None:
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
            sums = [s.sum(dtype=np.float64) for s in (self.native.parameters, self.native.state)]
        return bool(np.isfinite(sums).all())

    def reset_optimizer(self) -> None:
        """Moments and step counters to zero."""
        for space in (*self._moments(), self.native.counters):
            space[...] = 0

    def _spaces(self) -> tuple[Array, ...]:
        m = self.native
        return (m.parameters, m.state, *self._moments(), m.counters)

    def _moments(self) -> tuple[Array, ...]:
        return (self.native.moment1, self.native.moment2)[: self.optimizer.n_moments]

    def count_batches(self, steps: int) -> None:
        """Advance BatchNorm's num_batches_tracked, which no kernel touches."""
        for tracker in self._trackers:
            tracker.data[...] += steps

    # --- the optimiser's state, under torch's names ---

    def optimizer_state(self) -> dict[str, Array]:
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

    def _optimizer_views(self) -> dict[str, Array]:
        counter = {group: i for i, (group, _, _) in enumerate(self.layout.segments)}
        views: dict[str, Array] = {}
        for e in self.layout.entries:
            for name, flat in zip(self.optimizer.state_names, self._moments(), strict=True):
                views[f"{e.name}.{name}"] = flat[e.offset : e.offset + e.size].reshape(e.shape)
            at = counter[e.group]
            views[f"{e.name}.step"] = self.native.counters[at : at + 1].reshape(())
        return views
