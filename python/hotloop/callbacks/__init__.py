# SPDX-License-Identifier: Apache-2.0
"""Callbacks: Python that watches a run, and may stop it.

`Callback` is the base; adapters for trackers are loaded, with their libraries, when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotloop.callbacks.base import Callback, CallbackLike, as_callbacks
from hotloop.callbacks.state import FitState

if TYPE_CHECKING:
    from hotloop.callbacks.tensorboard import TensorBoard as TensorBoard

__all__ = ["Callback", "CallbackLike", "FitState", "TensorBoard", "as_callbacks"]


def __getattr__(name: str) -> Any:
    if name == "TensorBoard":
        from hotloop.callbacks.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(f"module 'hotloop.callbacks' has no attribute {name!r}")
