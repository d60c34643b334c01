# SPDX-License-Identifier: Apache-2.0
"""`Callback`: what a run calls at its start, its end, the ends of epochs and, on request, of batches.

Whatever a callback does or raises, the rollback to the best epoch stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from hotloop.arguments import count
from hotloop.callbacks.state import FitState


class Callback:
    """Base of callbacks; override what you need.

    `on_batch_end` is called after every ``every_n_batches``-th batch of the run, counted as `FitState.step`,
    if it is overridden; None means never. Set it in the class or on the object. The native loop pauses for
    it, which takes some microseconds, and is not touched at all where nobody asks.

    >>> import hotloop as hl
    >>> class Enough(hl.Callback):
    ...     every_n_batches = 100
    ...     def on_batch_end(self, state):
    ...         return state.metrics["loss"] < 0.01
    >>> trainer = hl.Trainer(hl.nn.Linear(3, 1), callbacks=[Enough(), lambda state: print(state.epoch)])
    """

    every_n_batches: int | None = 1

    def on_fit_start(self, state: FitState) -> None:
        """Before the first epoch. A run that goes on from a checkpoint has ``state.step > 0`` here."""

    def on_batch_end(self, state: FitState) -> object:
        """After a batch. A truthy return ends the run at once, as Ctrl-C does: an epoch cut short is not
        validated and leaves no entry in the history."""
        return None

    def on_epoch_end(self, state: FitState) -> object:
        """After each whole epoch, validation included. A truthy return ends the run."""
        return None

    def on_fit_end(self, state: FitState) -> None:
        """After the rollback, whatever ended the run, unless an exception did."""

    def state_dict(self) -> Mapping[str, Any]:
        """What this callback needs in order to go on with a run, as data that JSON can hold; it is written
        to every checkpoint. Empty, as here: nothing is stored."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, before `on_fit_start`, when a run goes on from a checkpoint."""


CallbackLike = Union[Callback, Callable[[FitState], Any]]


class _Function(Callback):
    """A plain callable as `on_epoch_end`; what it returns is ignored."""

    def __init__(self, function: Callable[[FitState], Any]) -> None:
        self._function = function
        self.function_name: str = getattr(function, "__qualname__", type(function).__qualname__)

    def on_epoch_end(self, state: FitState) -> object:
        self._function(state)
        return None


def as_callbacks(callbacks: Iterable[CallbackLike]) -> tuple[Callback, ...]:
    """Each as a `Callback`. Raises `TypeError` for what is neither one nor callable."""
    if isinstance(callbacks, Callback) or callable(callbacks):
        raise TypeError(f"[Trainer] callbacks must be a sequence, got {callbacks!r}; write callbacks=[...]")
    return tuple(_as_callback(c) for c in callbacks)


def asks_for_batches(callback: Callback) -> int | None:
    """After how many batches each `on_batch_end` wants to be called; None if never.

    Raises `TypeError` or `ValueError` for an ``every_n_batches`` that is not None or a number above 0.
    """
    if getattr(callback.on_batch_end, "__func__", None) is Callback.on_batch_end:
        return None
    every = callback.every_n_batches
    return None if every is None else count("Trainer", f"{name_of(callback)}.every_n_batches", every, low=1)


def name_of(callback: Callback) -> str:
    """The name of a callback's class, or of the function that it stands for."""
    return callback.function_name if isinstance(callback, _Function) else type(callback).__qualname__


def _as_callback(callback: CallbackLike) -> Callback:
    if isinstance(callback, type):
        raise TypeError(f"[Trainer] {callback.__name__} is a class; pass an instance: {callback.__name__}()")
    if isinstance(callback, Callback):
        return callback
    if callable(callback):
        return _Function(callback)
    raise TypeError(f"[Trainer] a callback must be a hl.Callback or a callable (state), got {callback!r}")
