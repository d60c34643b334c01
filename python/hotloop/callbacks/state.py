# SPDX-License-Identifier: Apache-2.0
"""`FitState`: what a callback sees of a run.

Numbers are read-only, and the tensors are views of the live memory, made when somebody asks: a callback that
looks at the loss alone costs no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Views = Mapping[str, Array]
Metrics = Mapping[str, float]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass
class FitState:
    """What a callback sees.

    model    the module; its parameters are the live ones
    epochs   the number of epochs asked for
    run      the number of this run of the trainer, from 0
    epoch    at epoch ends the 1-based number of the epoch that ended, at batch ends of the one in hand; at the
             start the number of whole epochs done: 0, unless the run goes on from a checkpoint
    batch    batches done of the epoch in hand; 0 at epoch ends
    step     batches done of the run
    metrics  of this epoch, by the names of `History.history`; at batch ends those of its batches so far
    lr       the learning rate of the last step
    history  the metrics of all whole epochs so far, name -> one float each
    """

    model: Any
    epochs: int
    run: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    metrics: Metrics = field(default_factory=_nothing)
    lr: float = 0.0
    history: Mapping[str, Sequence[float]] = field(default_factory=_nothing, repr=False)
    stop_requested: bool = False
    #: Give the views of `parameters` and `gradients`.
    tensors: Callable[[str], Views] = field(default=lambda space: _nothing(), repr=False)

    def stop(self) -> None:
        """End the run: after this epoch, or in `on_batch_end` after this batch."""
        self.stop_requested = True

    @property
    def parameters(self) -> Views:
        """Read-only views of the live parameters, by name: no copy, and they change as training goes on.
        What is to be kept needs ``.copy()``."""
        return self.tensors("parameters")

    @property
    def gradients(self) -> Views:
        """Read-only views of the gradients of the last batch, by parameter name; zeros before the first."""
        return self.tensors("gradients")
