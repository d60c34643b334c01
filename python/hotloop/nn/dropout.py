# SPDX-License-Identifier: Apache-2.0
"""Dropout."""

from __future__ import annotations

from hotloop.errors import GraphError
from hotloop.nn.base import Module
from hotloop.nn.checks import check_real
from hotloop.trace import Tensor, active_tracer


class Dropout(Module):
    """In training, each element is 0 with probability p, and divided by 1 - p otherwise.

    In evaluation and prediction it does nothing.

    Every call in forward is a layer of its own with its own random stream, keyed by (seed, run, layer,
    step): the mask depends neither on threads nor on the batch size. p is rounded to a multiple of 2^-16.

    Raises:
        GraphError: p outside of [0, 1].
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        check_real("Dropout", p=p)
        if not 0.0 <= p <= 1.0:
            raise GraphError(f"[Dropout] p must lie in 0..1, got {p!r}")
        self.p = float(p)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        tracer = active_tracer()
        assert tracer is not None  # a module is called in a trace only
        if self.p == 0.0:
            return input
        return input.emit("dropout", layer=tracer.next_dropout(), p=self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
