# SPDX-License-Identifier: Apache-2.0
"""What a run keeps in native memory beside what a snapshot holds: sums of gradients, and averaged weights.

Sums of gradients matter only between the batches that share an update. With a moving average, parameters and
average change places around every training pass: Python, evaluation, snapshots and files only ever see the
average, and training goes on with the weights as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

from hotloop.runtime.memory import Array, ModelMemory

_SUMS, _RAW, _COUNT = "accumulated/", "raw/", "averaged updates"


class RunBuffers:
    """The buffers of one run; as a context, the weights in training are in place of their average."""

    def __init__(self, memory: ModelMemory, *, accumulate: int, ema: bool) -> None:
        self._memory = memory
        self._accumulate, self._ema = accumulate, ema

    def on(self, memory: ModelMemory) -> RunBuffers:
        """The buffers of such a run on a copy of its memory."""
        return RunBuffers(memory, accumulate=self._accumulate, ema=self._ema)

    def begin(self) -> None:
        """At the start of a run: the average is of the weights as they are."""
        if self._ema:
            self._memory.native.begin_ema()

    def __enter__(self) -> None:
        if self._ema:
            self._memory.native.exchange_ema()

    def __exit__(self, *error: object) -> None:
        if self._ema:
            self._memory.native.exchange_ema()

    def tensors(self, batch: int) -> dict[str, Array]:
        """Views, by name, of what an exact resume needs when so many batches of an epoch are done: the sums of
        an update that is not made yet, the weights in training, and how many updates are in their average."""
        native, found = self._memory.native, {}
        if batch % self._accumulate:
            found = {_SUMS + name: view for name, view in self._memory.by_parameter(native.accumulated)}
        if self._ema:
            found |= {_RAW + name: view for name, view in self._memory.by_parameter(native.ema)}
            found[_COUNT] = native.ema_counter.reshape(())
        return found

    def check(self, tensors: Mapping[str, Array], batch: int) -> None:
        """Raises `ValueError` unless `load` would take these."""
        for name, view in self.tensors(batch).items():
            value = tensors.get(name)
            if value is None or value.shape != view.shape or value.dtype != view.dtype:
                found = "is missing" if value is None else f"is {value.dtype} {value.shape}"
                raise ValueError(f"{name!r} {found}; expected {view.dtype} {view.shape}")

    def load(self, tensors: Mapping[str, Array], batch: int) -> None:
        """Take over what `tensors` gave; the rest of the model's memory is restored before."""
        for name, view in self.tensors(batch).items():
            view[...] = tensors[name]
