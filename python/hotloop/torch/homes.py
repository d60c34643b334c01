# SPDX-License-Identifier: Apache-2.0
"""Where a module's tensors lie: torch's parameters are views of native memory, and stay so.

Others may put values elsewhere (``p.data = ...``) or move the memory; each call compares addresses, and what
is not at home is brought there, values and all, in the same Parameter objects.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from hotloop.errors import DeviceError, DTypeError, GraphError
from hotloop.nn import Module as Network
from hotloop.torch.inputs import WHERE


@dataclass(frozen=True)
class Place:
    """One of the module's tensors: where torch keeps it, and the tensor over the memory where it has to lie."""

    table: dict[str, Any]
    key: str
    name: str
    home: torch.Tensor


class Homes:
    """The tensors of one module."""

    def __init__(self, network: Network, lock: AbstractContextManager[Any]) -> None:
        self.network = network
        self.lock = lock
        self.places: list[Place] = []
        self.addresses: list[int] = []
        #: (table, key) of every parameter and, after them, of every buffer.
        self.slots: list[tuple[dict[str, Any], str]] = []
        self.n_parameters = 0

    def locate(
        self, tables: dict[str, tuple[dict[str, Any], str]], there: dict[str, Any] | None = None
    ) -> None:
        """Look up the homes of all tensors anew; ``tables``: name -> where torch keeps it. ``there``: name -> its home
        on a device; what has none, as counts have, stays where torch has put it."""
        parameters = list(self.network.named_parameters())
        self.n_parameters = len(parameters)
        items = [*parameters, *self.network.named_buffers()]
        self.places = []
        for name, item in items:
            table, key = tables[name]
            home = torch.from_numpy(item.data) if there is None else there.get(name, table[key].detach())
            self.places.append(Place(table, key, name, home))
        self.slots = [(place.table, place.key) for place in self.places]
        self.addresses = [place.home.data_ptr() for place in self.places]

    def tensors(self) -> list[Any]:
        """The module's tensors, parameters first, each lying where it has to; values that somebody put
        elsewhere (``p.data = ...``, ``load_state_dict(assign=True)``) are taken over."""
        try:
            found = [table[key] for table, key in self.slots]
            if [tensor.data_ptr() for tensor in found] == self.addresses:
                return found
        except (KeyError, AttributeError):
            pass
        self._bring_home()
        return [table[key] for table, key in self.slots]

    def _bring_home(self) -> None:
        with self.lock:
            for number, place in enumerate(self.places):
                _check_tensor(place, place.table.get(place.key), number < self.n_parameters)
            for place in self.places:
                tensor, home = place.table[place.key], place.home
                if tensor.data_ptr() != home.data_ptr():
                    home.copy_(tensor.detach())
                    tensor.data = home

    @property
    def parameter_places(self) -> list[Place]:
        """Those of the parameters."""
        return self.places[: self.n_parameters]

    def parameters(self) -> list[Any]:
        """The parameters among `tensors`."""
        found = self.tensors()
        del found[self.n_parameters :]
        return found


def _check_tensor(place: Place, tensor: Any, is_parameter: bool) -> None:
    """Raise unless torch's tensor can be at home in our memory."""
    what = f"[{WHERE}] {place.name}"
    if tensor is None or (is_parameter and not isinstance(tensor, torch.nn.Parameter)):
        raise GraphError(
            f"{what} is {type(tensor).__name__}, not a Parameter; parametrizations and torch.func.functional_call "
            "replace parameters by tensors that native code cannot follow; set values with p.copy_(...)"
        )
    if tensor.device != place.home.device:
        raise DeviceError(
            f"{what} lies on {tensor.device}; allowed: {place.home.device}; call module.to('{place.home.device}')"
        )
    if tensor.dtype != place.home.dtype or tensor.shape != place.home.shape:
        raise DTypeError(
            f"{what} is {tensor.dtype} {tuple(tensor.shape)}; allowed: {place.home.dtype} "
            f"{tuple(place.home.shape)}; assign a tensor of that kind"
        )
