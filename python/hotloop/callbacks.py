# SPDX-License-Identifier: Apache-2.0
"""Callbacks: Python is entered at the ends of epochs, and only there.

A callback sees a `FitState`; it may read everything, and stop the run. Whatever it does or raises, the
rollback to the best epoch stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Union


@dataclass
class FitState:
    """What a callback sees.

    epoch    1-based number of the epoch that ended; 0 at the start of the run
    epochs   the number of epochs asked for
    metrics  read-only: the metrics of this epoch, by the names of `History.history`
    lr       the learning rate of the epoch's last step
    model    the module; its parameters are the live ones
    """

    model: Any
    epochs: int
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    lr: float = 0.0
    stop_requested: bool = False

    def stop(self) -> None:
        """End the run after this epoch."""
        self.stop_requested = True


class Callback:
    """Base of callbacks; override what you need.

    >>> import hotloop as hl
    >>> class Enough(hl.Callback):
    ...     def on_epoch_end(self, state):
    ...         return state.metrics["loss"] < 0.01
    >>> trainer = hl.Trainer(hl.nn.Linear(3, 1), callbacks=[Enough(), lambda state: print(state.epoch)])
    """

    def on_fit_start(self, state: FitState) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, state: FitState) -> object:
        """After each whole epoch, validation included. A truthy return ends the run."""
        return None

    def on_fit_end(self, state: FitState) -> None:
        """After the rollback, whatever ended the run, unless an exception did."""


CallbackLike = Union[Callback, Callable[[FitState], Any]]


class _Function(Callback):
    """A plain callable as `on_epoch_end`; what it returns is ignored."""

    def __init__(self, function: Callable[[FitState], Any]) -> None:
        self._function = function

    def on_epoch_end(self, state: FitState) -> object:
        self._function(state)
        return None


def as_callbacks(callbacks: Iterable[CallbackLike]) -> tuple[Callback, ...]:
    """Each as a `Callback`. Raises `TypeError` for what is neither one nor callable."""
    if isinstance(callbacks, Callback) or callable(callbacks):
        raise TypeError(f"[Trainer] callbacks must be a sequence, got {callbacks!r}; write callbacks=[...]")
    return tuple(_as_callback(c) for c in callbacks)


def _as_callback(callback: CallbackLike) -> Callback:
    if isinstance(callback, type):
        raise TypeError(f"[Trainer] {callback.__name__} is a class; pass an instance: {callback.__name__}()")
    if isinstance(callback, Callback):
        return callback
    if callable(callback):
        return _Function(callback)
    raise TypeError(f"[Trainer] a callback must be a hl.Callback or a callable (state), got {callback!r}")
