# SPDX-License-Identifier: Apache-2.0
"""A step of torch's optimisers for parameters on a CUDA device: one launch for each, in the order of torch's stream.

The numbers are those of csrc/bindings/update_many.cc, which does the same for the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hotloop.torch import cuda

_SGD, _ADAM, _ADAMW = range(3)


class Update:
    """The launches of one step, begun by the first parameter of each device and ended by `finish`."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._queues: dict[int, tuple[Any, int]] = {}  # device -> (our queue, torch's stream)
        self._scalars: dict[tuple[Any, ...], Any] = {}
        self._held: list[Any] = []

    def add(self, p: Tensor, state: dict[str, Any], rule: tuple[Any, ...], begins: bool) -> None:
        """Launch the update of one parameter; ``rule``: as `optim._Native._rule`, ``begins``: its momentum is fresh."""
        kind, beta1 = rule[0], rule[3]
        step = 1.0
        if kind == _SGD:
            moments = [state["momentum_buffer"]] if beta1 else []
        else:
            state["step"] += 1
            step = float(state["step"])
            moments = [state["exp_avg"], state["exp_avg_sq"]]
        tensors = [p.detach(), *moments, p.grad.detach()]
        dense = lined_up(tensors)
        self._launch(dense, rule, step, begins)
        for given, used in zip(tensors[:-1], dense[:-1], strict=True):
            if used is not given:  # in torch's stream, so after ours
                self.finish()
                given.copy_(used)

    def _launch(self, tensors: list[Tensor], rule: tuple[Any, ...], step: float, begins: bool) -> None:
        kind, _, _, beta1, beta2, eps, _, nesterov, _ = rule
        p = tensors[0]
        if not p.numel():
            return
        queue = self._begin(p)
        scalars = self._scalars_at(queue, rule, step, begins or len(tensors) == 2)
        at = [x.data_ptr() for x in tensors]
        if kind == _SGD:
            buffer = at[1] if len(at) == 3 else None
            queue.launch("sgd", (at[0], buffer, at[-1], scalars, p.numel(), int(nesterov), beta1))
        else:
            fields = (*at[:3], at[3], scalars, p.numel(), int(kind == _ADAMW), beta1, beta2, eps)
            queue.launch("adam", fields)
        self._held.append(tensors)

    def _begin(self, p: Tensor) -> Any:
        number, _ = cuda.place(p)
        if number not in self._queues:
            queue, stream = self._queues[number] = cuda.queue(p, self.where, "a parameter")
            queue.after(stream)
        return self._queues[number][0]

    def _scalars_at(self, queue: Any, rule: tuple[Any, ...], step: float, own: bool) -> int:
        """The address of what optimizer_begin of args.h gives, which parameters at one step share: [skip, lr, decay,
        scale of the gradient, corrections, t, norm]. ``own``: the gradient counts in full, without dampening."""
        key = (queue.number, rule, step, own)
        if key not in self._scalars:
            kind, lr, decay, beta1, beta2, _, dampening, _, maximize = rule
            share = 1.0 if kind != _SGD or own else 1.0 - dampening
            corrections = (1.0, 1.0) if kind == _SGD else (1 - beta1**step, math.sqrt(1 - beta2**step))
            numbers = np.array(
                [0.0, lr, share * decay, -share if maximize else share, *corrections, step, 0.0]
            )
            memory = self._scalars[key] = queue.allocate(numbers.nbytes)
            queue.upload(memory.address, numbers)
        address: int = self._scalars[key].address
        return address

    def finish(self) -> None:
        """What torch launches from now on comes after the updates."""
        for queue, stream in self._queues.values():
            queue.before(stream)
        self._queues.clear()
        self._held.clear()


def lined_up(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors with their elements in one order and without gaps: themselves, where they are so, else copies."""
    first, *rest = tensors
    like = first if _is_dense(first) else first.contiguous()
    return [like, *(x if x.stride() == like.stride() else torch.empty_like(like).copy_(x) for x in rest)]


def _is_dense(x: Tensor) -> bool:
    expected = 1
    for stride, n in sorted(zip(x.stride(), x.shape, strict=True)):
        if n != 1 and stride != expected:
            return not x.numel()
        expected *= n
    return True
