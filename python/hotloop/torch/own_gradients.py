# SPDX-License-Identifier: Apache-2.0
"""Gradients that backward writes by itself: `.grad` of each parameter is a view of the flat native buffer.

As `main_grad` of Megatron's and apex's layers: autograd neither makes a tensor for each gradient nor adds it up. In
its graph stands one anchor for all parameters, so that backward is called at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hotloop.errors import GraphError
from hotloop.runtime.memory import ModelMemory
from hotloop.torch.inputs import WHERE

_INSTEAD = "use Module(model), whose gradients go through autograd"


class Group:
    """Parameters of which one kind of call has gradients: views of those, and what `.grad` is compared with."""

    def __init__(self, views: Sequence[Any]) -> None:
        self.views = list(views)
        # Objects that live are told apart by their address, and comparing numbers takes a third of comparing objects.
        self.ids = [id(view) for view in views]
        self.missing = [id(None)] * len(views)


class OwnGradients:
    """The views of one module's gradients, and the anchor."""

    def __init__(self) -> None:
        self.anchor = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)
        self._node = torch.autograd.graph.get_gradient_edge(self.anchor).node
        self._memory: ModelMemory | None = None
        self._in_place = True
        #: Beside each parameter its gradient; None beside one that the network does not use.
        self._views: tuple[Any, ...] = ()
        self._groups: dict[tuple[int, ...], Group] = {}

    def locate(self, memory: ModelMemory, names: Sequence[str], there: Any = None) -> None:
        """Make the views of the gradients of these parameters, unless they are there: of the native memory, or of a
        tensor on a device, where passes give gradients that are added."""
        if memory is self._memory:
            return
        flat = torch.from_numpy(memory.native.gradients) if there is None else there
        self._in_place = there is None
        places = {e.name: flat[e.offset : e.offset + e.size].view(e.shape) for e in memory.layout.entries}
        self._views = tuple(places.get(name) for name in names)
        self._groups.clear()
        self._memory = memory

    def are_wanted(self) -> bool:
        """Within backward: whether it is to give parameters their gradients, and not somebody an input's alone."""
        wanted: bool = torch._C._will_engine_execute_node(self._node)
        return wanted

    def take(self, run: Any, positions: tuple[int, ...], parameters: Any, doutput: int, dinputs: Any) -> None:
        """Go back from a native pass: its gradients, of the parameters at these positions, are added to `.grad`,
        or become it where there is none. ``doutput``, ``dinputs``: addresses.

        Raises `GraphError` for hooks, which only autograd runs.
        """
        group = self._groups.get(positions)
        if group is None:
            group = self._groups[positions] = Group([self._views[i] for i in positions])
        params = parameters
        if len(positions) != len(parameters):
            params = [parameters[i] for i in positions]
        for p in params:
            if p._backward_hooks or p._post_accumulate_grad_hooks:
                raise GraphError(
                    f"[{WHERE}] a parameter {tuple(p.shape)} has a hook, which direct_grad=True does not run; "
                    f"remove it, or {_INSTEAD}"
                )
        held = [id(p.grad) for p in params]
        if not self._in_place:
            self._add_each(run, group, params, doutput, dinputs)
        elif held == group.ids:
            run.accumulate(doutput, dinputs, True)
        elif held == group.missing:
            run.accumulate(doutput, dinputs, False)
            for p, view in zip(params, group.views):  # noqa: B905  # strict takes as long as an assignment
                p.grad = view
        else:  # some are not there, or were put there by somebody else
            self._add_each(run, group, params, doutput, dinputs)
        torch.autograd.graph.increment_version(
            group.views
        )  # so that autograd sees writes that it did not make

    @staticmethod
    def _add_each(run: Any, group: Group, params: Sequence[Any], doutput: int, dinputs: Any) -> None:
        found = run.backward(doutput, dinputs, True)
        for p, view, gradient in zip(params, group.views, found, strict=True):
            _add(p, view, torch.as_tensor(gradient))


def _add(parameter: Any, view: Any, gradient: Any) -> None:
    if parameter.grad is None:
        parameter.grad = view.copy_(gradient)
    else:
        parameter.grad.add_(gradient)


def changed(parameters: Sequence[Any], versions: Sequence[int]) -> RuntimeError:
    """What is raised, as by autograd, if one of the parameters has changed since forward."""
    i = next(i for i, version in enumerate(versions) if parameters[i]._version != version)
    return RuntimeError(
        f"[{WHERE}] a parameter {tuple(parameters[i].shape)}, which is needed for gradient computation, has been "
        f"modified by an inplace operation since forward: it is at version {parameters[i]._version}; expected version "
        f"{versions[i]}; change parameters after backward"
    )


def no_graph() -> GraphError:
    """What is raised where gradients are asked to be part of a graph."""
    return GraphError(
        f"[{WHERE}] create_graph=True is not available with direct_grad=True: gradients are no part of the graph; "
        f"{_INSTEAD}"
    )
