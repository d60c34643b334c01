# SPDX-License-Identifier: Apache-2.0
"""What one `Module` runs on: compiled passes by kind of call.

A kind of call is the inputs' dtypes and row shapes, which gradients are wanted, and the mode. Each has one
native object that runs forward from addresses to addresses, keeps an arena for every forward pass that waits
for its gradients, and hands the gradients out as they lie in the flat buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hotloop import _core
from hotloop.compile.autodiff import GRAD, INPUT
from hotloop.compile.plan import PlanSpec, TrainableSpec
from hotloop.data import border
from hotloop.errors import LabelError, ShapeError
from hotloop.fit.setup import check_batches
from hotloop.graph import Graph
from hotloop.nn import Module as Network
from hotloop.optim import SGD
from hotloop.runtime.direct import rows_for_a_team
from hotloop.runtime.session import Session
from hotloop.torch.homes import Homes
from hotloop.torch.inputs import WHERE, as_arrays, input_names, input_of
from hotloop.torch.kernels import READABLE
from hotloop.torch.own_gradients import OwnGradients
from hotloop.torch.there import Passes, There

#: Kinds of calls that are kept; each has programs and arenas of its own.
_MAX_KINDS = 32
_MAX_CALLS = 256


@dataclass(frozen=True)
class Kind:
    """The compiled passes of one kind of call."""

    passes: Any  # `_core.Passes`, or those of there.py
    row_shape: tuple[int, ...]  # of the output
    #: Positions of the inputs whose gradients it gives, and of the parameters.
    inputs: tuple[int, ...]
    parameters: tuple[int, ...]
    draws: bool  # whether there is dropout in it
    makes_tensors: bool  # or arrays, from which torch makes tensors
    there: There | None  # the memory on a device where it runs


class Native:
    """The native side of one module. Passes run under `lock`, which waits for other threads."""

    def __init__(self, network: Network, threads: int | None, direct_grad: bool = False) -> None:
        self.network = network
        self.threads = threads
        self.session = Session(network, SGD(0.0), seed=0, threads=threads)
        self.lock = self.session.lock
        self.homes = Homes(network, self.lock)
        self._kinds: dict[Any, Kind] = {}
        #: Calls that were checked, down to the rows: (kind, shape of the output).
        self._calls: dict[Any, tuple[Kind, tuple[int, ...]]] = {}
        #: Where backward writes the gradients of parameters by itself; None leaves them to autograd.
        self.own = OwnGradients() if direct_grad else None
        self.device = torch.device("cpu")
        #: Whether that is a CUDA device, and from the first call there on the memory on it.
        self.is_there = False
        self.there: There | None = None
        self.counters: list[Any] = []  # of batches, on a device
        self._room = 0
        self.is_open = False  # whether there is flat memory, which needs the shapes of inputs

    @property
    def is_current(self) -> bool:
        """Whether there is memory, and nothing was done to any network since the last call."""
        return self.is_open and self.session.is_current

    def refresh(
        self, tables: dict[str, tuple[dict[str, Any], str]], names: tuple[str, ...], inputs: Sequence[Any]
    ) -> None:
        """Take over what the network's owner did to it, and make the memory where there is none yet."""
        with self.lock:
            if self.is_there:
                self._refresh_there(tables, names, inputs)
                return
            tensors = self.homes.tensors()
            self.session.notice_changes(WHERE)
            self._forget()
            self.session.graph_for(as_arrays(names, inputs, self.device), WHERE)
            self.is_open = True
            self.homes.locate(tables)
            if self.own is not None:
                self.own.locate(self.session.memory, [p.name for p in self.homes.parameter_places])
            for tensor, place in zip(tensors, self.homes.places, strict=True):
                if tensor.data_ptr() != place.home.data_ptr():
                    tensor.data = place.home  # the values were taken over from where it was

    def move(self, device: torch.device, is_there: bool) -> None:
        """Be on that device from the next call on, where torch's tensors are to be moved."""
        with self.lock:
            self.device, self.is_there, self.there = device, is_there, None
            self.is_open = False
            self._forget()

    def _refresh_there(
        self, tables: dict[str, tuple[dict[str, Any], str]], names: tuple[str, ...], inputs: Sequence[Any]
    ) -> None:
        """`refresh` on a device, where torch's tensors have the values and the network only says what to compute."""
        self.session.notice_changes(WHERE)
        self._forget()
        self.session.graph_for(as_arrays(names, inputs, self.device, True), WHERE)
        if self.there is None or self.there.of is not self.session.memory:
            self.there = There(self.session, self.device)
        self.is_open = True
        self.homes.locate(tables, self.there.views())
        if self.own is not None:
            places = [p.name for p in self.homes.parameter_places]
            self.own.locate(self.there.session.memory, places, self.there.gradients)
        self.counters = self.there.counters(tables)
        self.homes.tensors()

    def fetch(self) -> None:
        """Bring the network's own values up to date with those on a device."""
        if not self.is_there:
            return
        items = dict([*self.network.named_parameters(), *self.network.named_buffers()])
        with self.lock:
            for place, tensor in zip(self.homes.places, self.homes.tensors(), strict=True):
                items[place.name].data[...] = tensor.detach().cpu().numpy()

    def kind(
        self, names: tuple[str, ...], inputs: Sequence[Any], needs: tuple[bool, ...], training: bool
    ) -> tuple[Kind, tuple[int, ...]]:
        """The passes for such a call, and its output's shape; ``needs``: which inputs and parameters want
        gradients."""
        if len(inputs) == 1:
            x = inputs[0]
            call: Any = (training, needs, names, x.shape, x.dtype, x.device, x.layout)
        else:
            call = (training, needs, names, *[(x.shape, x.dtype, x.device, x.layout) for x in inputs])
        found = self._calls.get(call)
        if found is None:
            arrays = as_arrays(names, inputs, self.device, self.is_there)
            kind = self._checked_kind(names, arrays, inputs, needs, training)
            found = kind, (border.row_count(arrays), *kind.row_shape)
            _keep(self._calls, call, found, _MAX_CALLS)
        return found

    def _checked_kind(
        self, names: tuple[str, ...], arrays: border.Arrays, inputs: Sequence[Any], needs: tuple[bool, ...],
        training: bool,
    ) -> Kind:  # fmt: skip
        """The kind of a call that was not met before, if it may be made at all."""
        graph = self.session.graph_for(arrays, WHERE)
        rows = border.row_count(arrays)
        if not rows:
            raise ShapeError(f"[{WHERE}] the input has 0 rows; at least 1 is needed")
        border.fit_inputs(arrays, graph, where=WHERE, name="the input")
        if training:
            check_batches(graph, rows, rows, WHERE)
        if rows > self._room:
            self._room = max(rows, 2 * self._room)
            self._forget()
        key = (training, needs, names, *[(array.dtype, array.shape[1:]) for array in arrays.values()])
        if key not in self._kinds:
            _keep(self._kinds, key, self._compile(graph, names, inputs, needs, training), _MAX_KINDS)
        return self._kinds[key]

    def _forget(self) -> None:
        self._kinds.clear()
        self._calls.clear()

    def _compile(
        self,
        graph: Graph,
        names: tuple[str, ...],
        inputs: Sequence[Any],
        needs: tuple[bool, ...],
        training: bool,
    ) -> Kind:
        by_name = input_names(graph, names)
        needs_input, needs_parameter = needs[: len(inputs)], needs[len(inputs) :]
        wanted = [
            (i, place.name)
            for i, place in enumerate(self.homes.places[: len(needs_parameter)])
            if needs_parameter[i]
        ]
        entries = {entry.name: entry for entry in self.session.memory.layout.entries}
        wanted = [(i, name) for i, name in wanted if name in entries]
        spec = PlanSpec("predict", self._room)
        if training or any(needs):
            # As in torch, a BatchNorm whose parameters are frozen follows the batch all the same.
            norms = {graph_name for graph_name, value in graph.parameters if value in _norm_values(graph)}
            frozen = entries.keys() - {name for _, name in wanted} - norms
            spec = PlanSpec(
                "vjp", self._room, evaluated=not training,
                trainable=TrainableSpec(frozen=tuple(sorted(frozen))),
                input_gradients=tuple(by_name[i] for i, need in enumerate(needs_input) if need),
            )  # fmt: skip
        exe = (self.there.session if self.there is not None else self.session).build(graph, spec)
        plan, outputs = exe.plan, dict(exe.plan.outputs)
        given = [i for i, need in enumerate(needs_input) if need and GRAD + INPUT + by_name[i] in outputs]
        places: dict[str, Any] = dict(
            inputs=[input_of(plan, graph, by_name[i], x) for i, x in enumerate(inputs)],
            params=self.session.params_table(plan, graph, (1.0,))[0],
            middle=plan.section("forward")[1], output=outputs["output"],
            doutput=dict(plan.inputs).get("doutput", -1),
            dinputs=[outputs[GRAD + INPUT + by_name[i]] for i in given],
            gradients=[(entries[name].offset, list(entries[name].shape)) for _, name in wanted],
        )  # fmt: skip
        passes: Any
        if self.there is not None:
            passes = Passes(self.there, exe, counters=self.counters if training else (), **places)
        else:
            passes = _core.Passes(
                exe.program, exe.team, adaptive=self.session.adaptive,
                team_rows=0 if self.threads else rows_for_a_team(plan),
                batch_counters=self.session.memory.batch_counters() if training else (),
                tensor_type=torch.Tensor, **places,
            )  # fmt: skip
        return Kind(
            passes, border.row_shape(graph.types[graph.output]), tuple(given),
            tuple(i for i, _ in wanted), training and plan.n_dropout > 0,
            self.is_there or torch.Tensor in READABLE, self.there,
        )  # fmt: skip

    def explain_ids(self, names: tuple[str, ...], inputs: Sequence[Any]) -> LabelError:
        """The error for ids that the native copy found out of range."""
        arrays = as_arrays(names, [x.cpu() for x in inputs])
        graph = self.session.graph_for(arrays, WHERE)
        try:
            border.fit_inputs(arrays, graph, where=WHERE, name="the input")
        except LabelError as error:
            return error
        return LabelError(f"[{WHERE}] an id of the input was changed while it was read; give it a copy")


def _keep(table: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Put it into the table, which loses its oldest entry if it is full."""
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value


def _norm_values(graph: Graph) -> set[int]:
    """The weights and biases of BatchNorms."""
    nodes = (node for node in graph.nodes if node.op == "batch_norm")
    return {value for node in nodes for value in node.inputs[1:3] if value is not None}
