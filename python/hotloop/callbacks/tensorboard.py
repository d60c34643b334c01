# SPDX-License-Identifier: Apache-2.0
"""`TensorBoard`: metrics, rates and, on request, norms and histograms of parameters as TensorBoard events.

Written by tensorboardX (the extra ``tensorboard``), which needs no TensorFlow. Everything is plotted over the
step of the run, so that what a resumed run repeats takes the place of what was there.
"""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, Union

import numpy as np

from hotloop.arguments import count
from hotloop.callbacks.base import Callback
from hotloop.callbacks.state import FitState, Views

#: Seconds between two writings to the disk: a look at a running training is never older than that.
FLUSH_S = 1.0


class TensorBoard(Callback):
    """Write events to ``logdir/run0000``, the next `fit` of the trainer to ``logdir/run0001``, and so on.

    Args:
        logdir: the folder that ``tensorboard --logdir`` is given.
        every_n_batches: also write the running metrics of the epoch after so many batches; None: never.
        norms: every so many epochs, the L2 norm of each parameter and of its last gradient; None: never.
        histograms: every so many epochs, a histogram of each parameter; None: never.

    Tags: ``epoch/<metric>`` and ``batch/<metric>``, ``lr`` among them, ``weight_norm/<parameter>``,
    ``gradient_norm/<parameter>`` and ``weight/<parameter>``. A run that goes on from a checkpoint goes on in its
    folder, and hides what was written after the checkpoint. Raises `ImportError` without tensorboardX, and
    `TypeError` or `ValueError` for numbers below 1.

    >>> import hotloop as hl
    >>> watch = hl.callbacks.TensorBoard("runs", every_n_batches=50, norms=1)  # doctest: +SKIP
    """

    def __init__(
        self, logdir: Union[str, os.PathLike[str]], every_n_batches: int | None = None, *,
        norms: int | None = None, histograms: int | None = None,
    ) -> None:  # fmt: skip
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "[TensorBoard] needs tensorboardX; install the extra: pip install 'hotloop[tensorboard]'"
            ) from error
        self.logdir = pathlib.Path(logdir)
        self.every_n_batches = _every("every_n_batches", every_n_batches)
        self._norms, self._histograms = _every("norms", norms), _every("histograms", histograms)
        self._open = SummaryWriter
        self._writer: Any = None
        self._flushed = 0.0

    def on_fit_start(self, state: FitState) -> None:
        self._close()  # of a run that an exception ended
        purge = state.step + 1 if state.step else None
        # The name has the time in whole seconds, which two runs may share, and the later would replace the file.
        suffix = f".{state.step:012d}.{os.getpid()}"
        folder = self.logdir / f"run{state.run:04d}"
        self._writer = self._open(str(folder), purge_step=purge, filename_suffix=suffix)

    def on_batch_end(self, state: FitState) -> None:
        self._scalars("batch", {**state.metrics, "lr": state.lr}, state.step)

    def on_epoch_end(self, state: FitState) -> None:
        self._scalars("epoch", dict(state.metrics), state.step)
        if self._norms is not None and state.epoch % self._norms == 0:
            self._scalars("weight_norm", _norms(state.parameters), state.step)
            self._scalars("gradient_norm", _norms(state.gradients), state.step)
        if self._histograms is not None and state.epoch % self._histograms == 0:
            for name, values in state.parameters.items():
                self._writer.add_histogram(f"weight/{name}", values.ravel(), state.step)
        if time.monotonic() >= self._flushed + FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def on_fit_end(self, state: FitState) -> None:
        self._close()

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _every(name: str, value: int | None) -> int | None:
    return None if value is None else count("TensorBoard", name, value, low=1)


def _norms(views: Views) -> dict[str, float]:
    return {name: float(np.linalg.norm(values.astype(np.float64))) for name, values in views.items()}
