# SPDX-License-Identifier: Apache-2.0
"""The loop over epochs: interrupts, time limits, callbacks, schedules, clipping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.fit.job import StepParams

INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np, hotloop as hl
rng = np.random.default_rng(0)
X = rng.normal(size=(20000, 64)).astype(np.float32); y = rng.integers(0, 10, 20000)
trainer = hl.Trainer(hl.nn.Sequential(hl.nn.Linear(64, 512), hl.nn.ReLU(), hl.nn.Linear(512, 10)), threads=1)
trainer.fit(X, y, dry_run=True)
twice = len(sys.argv) > 1
def slow(state):
    time.sleep(2.0)
if twice:
    trainer.callbacks = hl.Trainer(trainer.model, callbacks=[slow]).callbacks
def send():
    for _ in range(2 if twice else 1):
        time.sleep(0.3)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
sent = []
threading.Thread(target=send).start()
try:
    run = trainer.fit(X[:640] if twice else X, y[:640] if twice else y, epochs=10000)
    print(run.stop_reason, time.perf_counter() - sent[0])
    steps = int(trainer.optimizer_state()["0.weight.step"])
    print(steps > 0, np.isfinite(trainer.predict(X[:5])).all())
except KeyboardInterrupt:
    print("KeyboardInterrupt", time.perf_counter() - sent[-1])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_in_a_process_of_its_own(twice: bool) -> None:
    arguments = [sys.executable, "-c", INTERRUPTED, *(["twice"] if twice else [])]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    reason, seconds = first.split()
    assert reason == ("KeyboardInterrupt" if twice else "interrupt")
    assert float(seconds) < 1.0  # one step and 50 ms, and room for a busy machine
    assert rest == ([] if twice else ["True True"])


def test_fit_works_in_another_thread_without_touching_signals(toy: Any) -> None:
    trainer, fit = toy.turning()
    runs: list[Any] = []
    thread = threading.Thread(target=lambda: runs.append(trainer.fit(**fit)))
    thread.start()
    thread.join()
    assert runs[0].stop_reason == "epochs"


def test_somebodys_own_signal_handler_stays(toy: Any) -> None:
    trainer, fit = toy.turning()
    seen: list[Any] = []

    def handler(number: int, frame: Any) -> None:
        seen.append(number)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        trainer.callbacks = hl.Trainer(
            trainer.model, callbacks=[lambda s: seen.append(signal.getsignal(signal.SIGINT) is handler)]
        ).callbacks
        trainer.fit(**{**fit, "epochs": 1})
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [True]


def test_max_time_ends_within_an_epoch(toy: Any) -> None:
    X, y = toy.classes(20000, 64, 10)
    trainer = hl.Trainer(toy.mlp(64, 512, 10), threads=1)
    begin = time.perf_counter()
    run = trainer.fit(X, y, epochs=1000, batch_size=1, max_time=0.1)
    assert run.stop_reason == "time"
    assert run.epochs == 0  # 20000 steps take longer than that
    assert 0.1 < time.perf_counter() - begin < 2.0


def test_callbacks_see_the_run(toy: Any) -> None:
    seen: list[Any] = []

    class Watch(hl.Callback):
        def on_fit_start(self, state: Any) -> None:
            seen.append(("start", state.epoch, state.epochs))

        def on_epoch_end(self, state: Any) -> None:
            with pytest.raises(TypeError):
                state.metrics["loss"] = 0
            seen.append((state.epoch, dict(state.metrics), state.lr, state.model is trainer.model))

        def on_fit_end(self, state: Any) -> None:
            seen.append(("end", state.epoch))

    trainer, fit = toy.turning(callbacks=[Watch()])
    run = trainer.fit(**{**fit, "epochs": 2})
    assert seen[0] == ("start", 0, 2)
    assert seen[1] == (1, {k: v[0] for k, v in run.history.items()}, run.history["lr"][0], True)
    assert [s[0] for s in seen[2:]] == [2, "end"]
    plain, fit = toy.turning(callbacks=[lambda state: True])  # a plain callable's return is ignored
    assert plain.fit(**{**fit, "epochs": 3}).epochs == 3


def test_reduce_on_plateau_lowers_the_rate_after_the_epoch(toy: Any) -> None:
    trainer, fit = toy.turning(schedule=hl.schedules.ReduceOnPlateau(factor=0.5, patience=2))
    run = trainer.fit(**fit)
    lr = np.array(run.history["lr"])
    best = int(np.argmin(run.history["val_loss"]))
    assert (lr[: best + 1] == 0.005).all()
    assert lr[best + 4] == 0.0025  # three bad epochs, more than the patience, then the next


def test_clipping_limits_the_step(toy: Any) -> None:
    X, y = toy.classes(32)
    for option, limit in (({"clip_norm": 0.01}, 0.01), ({"clip_value": 0.001}, 0.001 * np.sqrt(21))):
        trainer = hl.Trainer(toy.mlp(6, 3), optimizer=hl.optim.SGD(1.0), **option)
        before = trainer.model.initialize(0).state_dict()
        trainer.fit(X, y, epochs=1)
        change = [value - before[name] for name, value in trainer.model.state_dict().items()]
        norm = np.sqrt(sum(np.sum(c.astype(np.float64) ** 2) for c in change))
        assert 0.5 * limit < norm < 1.001 * limit


def test_an_epoch_leaves_nothing_behind_but_its_numbers(toy: Any) -> None:
    X, y = toy.classes(8)
    trainer = hl.Trainer(toy.mlp(6, 3), progress=False, threads=1)
    trainer.fit(X, y, epochs=100)
    page, statm = os.sysconf("SC_PAGE_SIZE"), Path("/proc/self/statm")
    resident = int(statm.read_text().split()[1]) * page if statm.exists() else 0
    tracemalloc.start()
    run = trainer.fit(X, y, epochs=10000)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    lists = (*run.history.values(), run.epoch_seconds)
    numbers = sum(map(len, lists)) * (24 + 8)  # a float, and its place in a list
    assert numbers == 4 * 10000 * 32
    # a list grows by an eighth at a time, and has its old and its new place while it does
    assert left < 1.2 * numbers + 100_000
    assert peak < 1.5 * numbers + 500_000
    # The address sanitizer's allocator keeps what is freed; the C++ tests look for leaks under it.
    if statm.exists() and "libasan" not in os.environ.get(
        "LD_PRELOAD", ""
    ):  # tracemalloc sees no native memory, and doubles what Python needs
        assert int(statm.read_text().split()[1]) * page - resident < 4 * numbers + 8_000_000


@pytest.mark.parametrize("schedule", [None, "cosine", hl.schedules.ReduceOnPlateau(0.5, 0)])
def test_one_row_of_step_parameters_stands_for_all_steps(toy: Any, schedule: Any) -> None:
    """What is reused from epoch to epoch holds the rates that the schedule says."""
    trainer, fit = toy.turning(schedule=schedule)
    tables: list[Any] = []

    class Watched(StepParams):
        def of(self, epoch: int, scale: float) -> Any:
            table, lr = super().of(epoch, scale)
            tables.append((table.copy(), lr, id(table)))
            return table, lr

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hotloop.fit.loop.StepParams", Watched)
        run = trainer.fit(**{**fit, "epochs": 8, "validation": (fit["X"], -fit["y"])})
    assert len({at for _, _, at in tables}) == 1  # allocated once
    assert [lr for _, lr, _ in tables] == run.history["lr"]
    assert tables[0][0].shape[0] == (4 if schedule == "cosine" else 1)
    factors = np.concatenate([table[:, 0] for table, _, _ in tables]) / 0.005
    if schedule == "cosine":
        np.testing.assert_allclose(factors, hl.schedules.Cosine().factors(32), rtol=1e-14)
    elif schedule is None:
        assert (factors == 1).all()
    else:  # the validation loss rises from the second epoch on
        np.testing.assert_allclose(factors, [1, 1, *0.5 ** np.arange(1, 7)])
