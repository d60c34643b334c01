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
from hotloop.model_memory import ModelMemory
from hotloop.torch.inputs import WHERE

_INSTEAD = "use Module(model), whose gradients go through autograd"


class OwnGradients:
    """The views of one module's gradients, and the anchor."""

    def __init__(self) -> None:
        self.anchor = torch.zeros((), dtype=torch.float32, device="cpu", requires_grad=True)
        self._node = torch.autograd.graph.get_gradient_edge(self.anchor).node
        self._memory: ModelMemory | None = None
        #: Beside each parameter its gradient; None beside one that the network does not use.
        self.views: tuple[Any, ...] = ()

    def locate(self, memory: ModelMemory, names: Sequence[str]) -> None:
        """Make the views of the gradients of these parameters, unless they are there."""
        if memory is self._memory:
            return
        flat = torch.from_numpy(memory.native.gradients)
        places = {
            e.name: flat[e.offset : e.offset + e.size].view(e.shape) for e in memory.layout.entries
        }
        self.views = tuple(places.get(name) for name in names)
        self._memory = memory

    def are_wanted(self) -> bool:
        """Within backward: whether it is to give parameters their gradients, and not somebody an input's alone."""
        wanted: bool = torch._C._will_engine_execute_node(self._node)
        return wanted

    def check(self, parameters: Sequence[Any], versions: Sequence[int], create_graph: bool) -> None:
        """Raises `GraphError` if autograd was asked for what it is not there to do; `RuntimeError`, as autograd,
        if one of the parameters has changed since forward."""
        if create_graph:
            raise GraphError(
                f"[{WHERE}] create_graph=True is not available with direct_grad=True: gradients are no part of "
                f"the graph; {_INSTEAD}"
            )
        for i, (p, version) in enumerate(zip(parameters, versions, strict=True)):
            if p._backward_hooks or p._post_accumulate_grad_hooks:
                raise GraphError(
                    f"[{WHERE}] parameter {i}, {tuple(p.shape)}, has a hook, which direct_grad=True does not run; "
                    f"remove it, or {_INSTEAD}"
                )
            if p._version != version:
                raise RuntimeError(
                    f"[{WHERE}] parameter {i}, {tuple(p.shape)}, which is needed for gradient computation, has been "
                    f"modified by an inplace operation since forward: it is at version {p._version}; expected "
                    f"version {version}; change parameters after backward"
                )

    def take(self, run: Any, positions: Sequence[int], parameters: Any, doutput: int, dinputs: Any) -> None:
        """Go back from a native pass: its gradients, of the parameters at these positions, are added to `.grad`,
        or become it where there is none. ``doutput``, ``dinputs``: addresses."""
        params = [parameters[i] for i in positions]
        views = [self.views[i] for i in positions]
        held = [p.grad for p in params]
        if not any(g is not None for g in held):
            run.accumulate(doutput, dinputs, False)
            for p, view in zip(params, views, strict=True):
                p.grad = view
        elif all(g is view for g, view in zip(held, views, strict=True)):
            run.accumulate(doutput, dinputs, True)
        else:  # some are not there, or were put there by somebody else
            self._add(run.backward(doutput, dinputs, True), params, held, views)
            return
        torch._C._increment_version(views)  # so that autograd sees writes that it did not make

    @staticmethod
    def _add(found: Any, params: Any, held: Any, views: Any) -> None:
        for p, grad, view, gradient in zip(params, held, views, found, strict=True):
            own = torch.as_tensor(gradient)
            if grad is None:
                p.grad = view.copy_(own)
            else:
                grad.add_(own)
