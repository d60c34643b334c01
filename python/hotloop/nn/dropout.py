# SPDX-License-Identifier: Apache-2.0
"""Dropout."""

from __future__ import annotations

from collections.abc import Iterator

from hotloop.errors import GraphError
from hotloop.nn.base import Module
from hotloop.nn.checks import check_real
from hotloop.trace import Tensor, active_tracer


class Dropout(Module):
    """In training, each element is 0 with probability p, and divided by 1 - p otherwise.

    In evaluation and prediction it does nothing.

    Every call in forward is a layer of its own with its own random stream, keyed by (seed, run, layer,
    step): the mask depends neither on threads nor on the batch size. p is rounded to a multiple of 2^-16.
    ``p`` may be set again between runs, here or by `Module.set_dropout`; that compiles nothing, unless it
    was or becomes 0.

    Raises:
        GraphError: p outside of [0, 1].
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = p
        self.inplace = inplace

    @property
    def p(self) -> float:
        """The drop probability."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self.check(value)
        self._p = float(value)

    @staticmethod
    def check(p: float) -> None:
        """Raises `GraphError` for what is no probability."""
        check_real("Dropout", p=p)
        if not 0.0 <= p <= 1.0:
            raise GraphError(f"[Dropout] p must lie in 0..1, got {p!r}")

    def forward(self, input: Tensor) -> Tensor:
        tracer = active_tracer()
        assert tracer is not None  # a module is called in a trace only
        if self.p == 0.0:
            return input
        return input.emit("dropout", layer=tracer.next_dropout(), p=self.p, name=tracer.path(self))

    def _own_dropout(self) -> Iterator[tuple[str, Dropout]]:
        yield "", self

    def extra_repr(self) -> str:
        return f"p={self.p}"
