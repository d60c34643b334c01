# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's callbacks (1.9 and later), where they are there: one task per epoch or iteration.

A callback may ask for the estimator as it stands; it gets a copy with copies of the weights, and only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's."""

    def with_callbacks(method: Any) -> Any:
        return method


F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["CallbackSupportMixin", "Tasks", "managed"]


def managed(method: F) -> F:
    """The method of an estimator, with callbacks torn down at its end however it ends."""
    decorated: F = with_callbacks(method)
    return decorated


class Tasks:
    """The tasks of one fit, as callbacks see them; nothing where there are none."""

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, *, max_tasks: int) -> None:
        self._est = estimator
        self._shown = {
            "X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }  # fmt: skip
        self._root: Any = None
        self._open: Any = None
        self._begun = 0
        if hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx"):
            self._root = estimator._init_callback_context(max_subtasks=max_tasks)
            self._call(self._root, "begin", fitted=False)

    def begin(self) -> None:
        """An epoch or iteration begins, unless it would be one too many."""
        if self._root is not None and self._begun < self._root.max_subtasks:
            self._begun += 1
            self._open = self._root.subcontext(task_name="iteration")
            self._call(self._open, "begin", fitted=True)

    def end(self) -> bool:
        """It has ended; whether a callback wants to stop."""
        if self._root is None or self._open is None:
            return False
        ended, self._open = self._open, None
        return bool(self._call(ended, "end", fitted=True))

    def close(self) -> None:
        """The fit has ended."""
        if self._root is None:
            return
        if self._open is not None:  # begun for an iteration that never came
            self._open.call_on_fit_task_end(estimator=self._est)
        self._call(self._root, "end", fitted=True)

    def _call(self, context: Any, which: str, *, fitted: bool) -> Any:
        call = getattr(context, f"call_on_fit_task_{which}")
        attributes = self._attributes if fitted else None
        return call(estimator=self._est, **self._shown, reconstruction_attributes=attributes)

    def _attributes(self) -> dict[str, Any]:
        """Copies of what a prediction needs; made when a callback asks."""
        est = self._est
        return {name: [a.copy() for a in getattr(est, name)] for name in ("coefs_", "intercepts_")}
