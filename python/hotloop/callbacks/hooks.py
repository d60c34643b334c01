# SPDX-License-Identifier: Apache-2.0
"""`Hooks`: the callbacks of one run, as the loop sees them.

It knows which of them is due after a batch, what all of them are shown, and what a checkpoint keeps of them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hotloop.callbacks.base import Callback, asks_for_batches, name_of
from hotloop.callbacks.state import FitState
from hotloop.errors import HotloopWarning

#: One callback in a checkpoint: {"name": of its class, "index": among those of that name, "state": ...}.
Stored = list[dict[str, Any]]


class Hooks:
    """Calls the callbacks of a run, all of them each time: one that stops the run hides nothing from the next.

    What a callback raises goes on its way with a note that says whose it is.
    """

    def __init__(self, callbacks: Sequence[Callback], state: FitState) -> None:
        self.state = state
        self._callbacks = callbacks
        asked = [(asks_for_batches(callback), callback) for callback in callbacks]
        self._batches = [(every, callback) for every, callback in asked if every is not None]

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def show(self, position: tuple[int, int, int], metrics: Mapping[str, float], lr: float) -> None:
        """What callbacks see from now on; ``position`` is (epoch, batch, step) of `FitState`."""
        state = self.state
        state.epoch, state.batch, state.step = position
        state.metrics, state.lr = MappingProxyType(metrics), lr

    # --- calls; each says whether the run should stop ---

    def fit_start(self) -> bool:
        return self._call("on_fit_start", self._callbacks, heed=False)

    def epoch_end(self) -> bool:
        return self._call("on_epoch_end", self._callbacks)

    def batches_left(self, step: int) -> int:
        """Batches until `batch_end` is due after a step of the run; -1: it never is."""
        return min((every - step % every for every, _ in self._batches), default=-1)

    def is_due(self, step: int) -> bool:
        """Whether some callback wants to see the end of this step of the run."""
        return any(step % every == 0 for every, _ in self._batches)

    def batch_end(self) -> bool:
        due = [callback for every, callback in self._batches if self.state.step % every == 0]
        return self._call("on_batch_end", due)

    def fit_end(self) -> None:
        self._call("on_fit_end", self._callbacks, heed=False)

    def _call(self, hook: str, callbacks: Iterable[Callback], *, heed: bool = True) -> bool:
        answers = []
        for callback in callbacks:
            try:
                answers.append(getattr(callback, hook)(self.state))
            except Exception as error:
                _note(error, f"[fit] raised by the callback {name_of(callback)}.{hook}")
                raise
        return self.state.stop_requested or (heed and any(answers))

    # --- checkpoints ---

    def stored(self) -> Stored:
        """The states that callbacks want to have kept, as JSON data.

        Raises `TypeError` for a state that JSON cannot hold, and whatever a callback raises.
        """
        found: Stored = []
        for name, index, callback in self._numbered():
            try:
                state = callback.state_dict()
                if state:
                    found.append({"name": name, "index": index, "state": _plain(name, state)})
            except Exception as error:
                _note(error, f"[fit] raised by the callback {name}.state_dict")
                raise
        return found

    def load(self, stored: Stored) -> None:
        """Hand each state to the callback of that class and number. One that is not there is told in a
        `HotloopWarning`, since callbacks may differ from those of the run that was stored."""
        here = {(name, index): callback for name, index, callback in self._numbered()}
        for entry in stored:
            name = entry["name"]
            callback = here.get((name, entry["index"]))
            if callback is None:
                warnings.warn(
                    f"[fit] the checkpoint holds the state of a callback {name} that this run does not have; "
                    "it is left out: pass the callbacks of the run in their order to go on with them",
                    HotloopWarning,
                    stacklevel=6,  # _resume, _FitLoop, run_fit, Trainer.fit, the caller
                )
                continue
            try:
                callback.load_state_dict(entry["state"])
            except Exception as error:
                _note(error, f"[fit] raised by the callback {name}.load_state_dict")
                raise

    def _numbered(self) -> Iterator[tuple[str, int, Callback]]:
        """Each callback with the name of its class and its number among those of that name."""
        seen: dict[str, int] = {}
        for callback in self._callbacks:
            name = name_of(callback)
            seen[name] = seen.get(name, -1) + 1
            yield name, seen[name], callback


def _plain(name: str, state: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(state)))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"[checkpoint] {name}.state_dict() must be a dict that JSON can hold, got {state!r:.80} ({error}); "
            "turn arrays into lists, and NumPy numbers into Python's"
        ) from None


def _note(error: Exception, text: str) -> None:
    """`BaseException.add_note`, which Python 3.10 lacks; what shows notes reads this list there too."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        error.__dict__.setdefault("__notes__", []).append(text)
