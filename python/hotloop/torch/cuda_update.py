# SPDX-License-Identifier: Apache-2.0
"""A step of torch's optimisers for parameters on a CUDA device: one launch for those of a device, in the order of torch's stream.

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
    """The launches of one step: parameters are added, and `finish` updates those of a device at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._queues: dict[int, tuple[Any, int]] = {}  # device -> (our queue, torch's stream)
        self._rows: dict[tuple[int, str], list[tuple[Any, ...]]] = {}  # (device, kernel) -> its fields
        self._scalars: dict[tuple[Any, ...], np.ndarray[Any, Any]] = {}
        self._back: list[tuple[Tensor, Tensor]] = []  # where a copy was updated: (the tensor, the copy)
        self._held: list[Any] = []

    def add(self, p: Tensor, state: dict[str, Any], rule: tuple[Any, ...], begins: bool) -> None:
        """One more parameter; ``rule``: as `optim._Native._rule`, ``begins``: its momentum is fresh."""
        kind, beta1 = rule[0], rule[3]
        step = 1.0
        if kind == _SGD:
            moments = [state["momentum_buffer"]] if beta1 else []
        else:
            state["step"] += 1
            step = float(state["step"])
            moments = [state["exp_avg"], state["exp_avg_sq"]]
        tensors = [p.detach(), *moments, p.grad.detach()]
        if not p.numel():
            return
        dense = lined_up(tensors)
        self._held.append(dense)
        self._back += [(x, used) for x, used in zip(tensors[:-1], dense[:-1], strict=True) if used is not x]
        number, _ = cuda.place(p)
        if number not in self._queues:
            self._queues[number] = cuda.queue(p, self.where, "a parameter")
        kernel = "sgd" if kind == _SGD else "adam"
        fields = self._fields([x.data_ptr() for x in dense], p.numel(), rule, step, begins or not moments)
        self._rows.setdefault((number, kernel), []).append(fields)

    def _fields(
        self, at: list[int], n: int, rule: tuple[Any, ...], step: float, own: bool
    ) -> tuple[Any, ...]:
        """Of the kernel's arguments; ``at``: addresses of parameter, moments and gradient."""
        kind, _, _, beta1, beta2, eps, _, nesterov, _ = rule
        scalars = self._scalars_of(rule, step, own)
        if kind == _SGD:
            return at[0], at[1] if len(at) == 3 else None, at[-1], scalars, n, int(nesterov), beta1
        return (*at[:3], at[3], scalars, n, int(kind == _ADAMW), beta1, beta2, eps)

    def _scalars_of(self, rule: tuple[Any, ...], step: float, own: bool) -> np.ndarray[Any, Any]:
        """What optimizer_begin of args.h gives: [skip, lr, decay, scale of the gradient, corrections, t, norm].
        ``own``: the gradient counts in full, without dampening."""
        key = (rule, step, own)
        if key not in self._scalars:
            kind, lr, decay, beta1, beta2, _, dampening, _, maximize = rule
            share = 1.0 if kind != _SGD or own else 1.0 - dampening
            corrections = (1.0, 1.0) if kind == _SGD else (1 - beta1**step, math.sqrt(1 - beta2**step))
            self._scalars[key] = np.array(
                [0.0, lr, share * decay, -share if maximize else share, *corrections, step, 0.0]
            )
        return self._scalars[key]

    def finish(self) -> None:
        """Launch: after what torch's streams hold now, and before what they are given next."""
        for queue, stream in self._queues.values():
            queue.after(stream)
        for (number, kernel), rows in self._rows.items():
            self._queues[number][0].update_list(kernel, rows)
        for queue, stream in self._queues.values():
            queue.before(stream)
        for tensor, used in self._back:
            tensor.copy_(used)


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
