# SPDX-License-Identifier: Apache-2.0
"""A run that is asked to stop does so after the step in hand: counted in steps, whatever the machine does.

How soon the native loop hears of a Ctrl-C that comes in mid-epoch is in test_fit_loop.py.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

import hotloop as hl


class InterruptedAt(hl.Callback):
    """Sends itself Ctrl-C before the first epoch (0) or after one."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def send(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def on_fit_start(self, state: Any) -> None:
        if self.epoch == 0:
            self.send()

    def on_epoch_end(self, state: Any) -> None:
        if state.epoch == self.epoch:
            self.send()


def steps_of(trainer: Any) -> int:
    return int(trainer.optimizer_state()["0.weight.step"])


def check_usable(trainer: Any, X: Any, y: Any) -> None:
    assert np.isfinite(trainer.predict(X)).all()
    before = steps_of(trainer)
    assert trainer.fit(X, y, epochs=1, batch_size=16, reset_optimizer=False).stop_reason == "epochs"
    assert steps_of(trainer) == before + 19


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("epoch", "steps"), [(0, 1), (3, 3 * 19)])
def test_ctrl_c_is_heard_after_the_next_step(toy: Any, threads: int, epoch: int, steps: int) -> None:
    X, y = toy.classes(300)
    trainer = hl.Trainer(toy.mlp(6, 8, 3), callbacks=[InterruptedAt(epoch)], threads=threads)
    run = trainer.fit(X, y, epochs=1000, batch_size=16)
    assert (run.stop_reason, run.epochs) == ("interrupt", epoch)
    assert steps_of(trainer) == steps
    trainer.callbacks = ()
    check_usable(trainer, X, y)


@pytest.mark.parametrize("threads", [1, 2])
def test_time_is_up_after_the_next_step(toy: Any, threads: int) -> None:
    X, y = toy.classes(300)
    trainer = hl.Trainer(toy.mlp(6, 8, 3), threads=threads)
    run = trainer.fit(X, y, epochs=1000, batch_size=16, max_time=0)
    assert (run.stop_reason, run.epochs, steps_of(trainer)) == ("time", 0, 1)
    check_usable(trainer, X, y)
