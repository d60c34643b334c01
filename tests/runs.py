# SPDX-License-Identifier: Apache-2.0
"""Training runs that together use everything that a checkpoint has to hold; and ways to stop them.

As a script: ``python runs.py NAME FOLDER EVERY [--resume] [--kill CALL:N] [--slow]`` runs one with
checkpoints, prints its result as JSON, and if asked to, kills itself at the N-th CALL of a writer.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import hotloop as hl
from hotloop.fit.loop import run_fit

EPOCHS, BATCH = 5, 16


def own_loss(prediction: Any, target: Any) -> Any:
    """log cosh, per row (n,), and its gradient (n, 1)."""
    error = prediction.astype(np.float64) - target
    return np.log(np.cosh(error)).mean(axis=1), np.tanh(error) / error.shape[1]


def own_schedule(step: int) -> float:
    return 1.0 / (1 + 0.1 * step)


class TwoInputs(hl.nn.Module):
    def __init__(self) -> None:
        self.table = hl.nn.Embedding(4, 3)
        self.head = hl.nn.Linear(5, 2)

    def forward(self, num: Any, cat: Any) -> Any:
        return self.head(hl.nn.functional.concat([num, self.table(cat)], 1))


def _data(rows: int, features: int) -> tuple[Any, Any, Any]:
    rng = np.random.Generator(np.random.PCG64(5))
    X = rng.normal(size=(rows, features)).astype(np.float32)
    return X, (X @ rng.normal(size=(features, 3))).argmax(axis=1), rng.uniform(0.1, 2, rows)


def _dropout(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Dropout, shuffle, warm-up, weights of classes and rows, a fraction held out, clipping; and patience,
    which ends it after its fourth epoch."""
    X, y, weight = _data(90, 6)
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.GELU(), hl.nn.Dropout(0.3), hl.nn.Linear(8, 3))
    trainer = hl.Trainer(
        model, hl.losses.CrossEntropy(label_smoothing=0.1, class_weight="balanced"),
        optimizer=hl.optim.AdamW(0.02), schedule=hl.schedules.Cosine(warmup=0.2),
        early_stopping=hl.EarlyStopping(patience=3, min_delta=0.5), clip_norm=1.0, **{"seed": 3, **options},
    )  # fmt: skip
    return trainer, {"X": X, "y": y, "validation": 0.25, "sample_weight": weight}


def _batch_norm(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Running statistics and their counts, plateau, momentum, two validation sets, labels in bytes."""
    X, y, weight = _data(90, 6)
    X = np.clip(X * 40 + 100, 0, 255).astype(np.uint8)
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.BatchNorm1d(8), hl.nn.Tanh(), hl.nn.Linear(8, 3))
    trainer = hl.Trainer(
        model, optimizer=hl.optim.SGD(0.3, momentum=0.9),
        schedule=hl.schedules.ReduceOnPlateau(0.5, 0, cooldown=1), monitor="b_accuracy", **options,
    )  # fmt: skip
    sets = {"a": (X[:30], y[:30]), "b": (X[60:], y[60:], weight[60:])}
    return trainer, {"X": X[:60], "y": y[:60], "validation": sets}


def _regression(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Several outputs, rows in order, no validation, a schedule by epochs."""
    X, y, _ = _data(70, 6)
    trainer = hl.Trainer(
        hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.Tanh(), hl.nn.Linear(8, 3)), hl.losses.Huber(0.5),
        optimizer=hl.optim.RMSprop(0.01), schedule=hl.schedules.Step(2, 0.5, warmup=4), clip_value=0.1, **options,
    )  # fmt: skip
    return trainer, {"X": X, "y": np.eye(3, dtype=np.float32)[y], "shuffle": False}


def _two_inputs(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Named inputs, integers among them, one validation set, the last weights kept."""
    X, y, _ = _data(70, 2)
    inputs = {"num": X, "cat": y + 1}
    trainer = hl.Trainer(
        TwoInputs(),
        optimizer="adam",
        schedule="one_cycle",
        restore_best=False,
        monitor="val_accuracy",
        **options,
    )
    labels = (X[:, 0] > 0).astype(np.int64)
    return trainer, {"X": inputs, "y": labels, "validation": (inputs, labels)}


def _callable(**options: Any) -> tuple[Any, dict[str, Any]]:
    """A loss and a schedule that are Python functions."""
    X, y, weight = _data(70, 6)
    trainer = hl.Trainer(hl.nn.Linear(6, 1), own_loss, schedule=own_schedule, optimizer="adam", **options)
    fit = {"X": X, "y": y.astype(np.float32), "validation": 0.2, "sample_weight": weight}
    return trainer, fit


def _freezing(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Layers that are unfrozen in the second, third and fifth epoch, a norm among them; rates by layer, one
    bias frozen for ever, and schedules of weight decay and dropout beside the learning rate's."""
    X, y, _ = _data(70, 6)
    model = hl.nn.Sequential(
        hl.nn.Linear(6, 8), hl.nn.BatchNorm1d(8), hl.nn.ReLU(), hl.nn.Linear(8, 8), hl.nn.Dropout(0.4),
        hl.nn.Linear(8, 3),
    )  # fmt: skip
    model.freeze("3.bias")
    plan = hl.FreezePlan(
        {
            "0": {"until_epoch": 4, "lr_scale": 0.1},
            "1": {"until_epoch": 2},
            "3": {"until_epoch": 1, "lr_scale": 0.5},
        }
    )
    trainer = hl.Trainer(
        model, freeze=plan, optimizer=hl.optim.AdamW(0.02, weight_decay=0.1, decay="weights"), clip_norm=0.5,
        schedule={"lr": "cosine", "weight_decay": hl.schedules.Linear(0, 1), "dropout": hl.schedules.Step(2, 0.5)}, **options,
    )  # fmt: skip
    return trainer, {"X": X, "y": y, "validation": (X[:20], y[:20])}


def _accumulated(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Updates of three batches and of the two that are left, averaged weights, rows without weight, no
    validation: the model that a checkpoint holds is the average in the midst of an update."""
    X, y, weight = _data(70, 6)
    weight[20:45] = 0
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.ReLU(), hl.nn.Dropout(0.2), hl.nn.Linear(8, 3))
    trainer = hl.Trainer(model, schedule="linear", clip_norm=0.5, accumulate=3, ema=0.8, **options)
    return trainer, {"X": X, "y": y, "sample_weight": weight}


def _averaged(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Averaged weights whose best epoch is kept, with running statistics, and updates of two batches."""
    X, y, _ = _data(90, 6)
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.BatchNorm1d(8), hl.nn.Tanh(), hl.nn.Linear(8, 3))
    trainer = hl.Trainer(model, optimizer=hl.optim.SGD(0.5, momentum=0.9), accumulate=2, ema=0.9, **options)
    return trainer, {"X": X, "y": y, "validation": 0.25}


def _accumulated_callable(**options: Any) -> tuple[Any, dict[str, Any]]:
    """The same for a loss that is a Python function."""
    trainer, fit = _callable(accumulate=2, ema=0.9, **options)
    return trainer, {**fit, "sample_weight": np.where(np.arange(70) % 3, fit["sample_weight"], 0)}


RUNS: dict[str, Callable[..., tuple[Any, dict[str, Any]]]] = {
    "dropout": _dropout,
    "batch_norm": _batch_norm,
    "regression": _regression,
    "two_inputs": _two_inputs,
    "callable": _callable,
    "freezing": _freezing,
    "accumulated": _accumulated,
    "averaged": _averaged,
    "accumulated_callable": _accumulated_callable,
}


def make(name: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A fresh trainer, and the arguments of its fit."""
    trainer, fit = RUNS[name](**{"progress": False, **options})
    return trainer, {"epochs": EPOCHS, "batch_size": BATCH, **fit}


def result(trainer: Any, run: Any, X: Any) -> dict[str, Any]:
    """What must not depend on interruptions, as JSON data: floats to the bit."""
    hasher = hashlib.blake2b()
    for state in (trainer.model.state_dict(), trainer.optimizer_state(), {"predictions": trainer.predict(X)}):
        for name in sorted(state):
            hasher.update(name.encode() + np.ascontiguousarray(state[name]).tobytes())
    return {
        "history": {name: [value.hex() for value in values] for name, values in run.history.items()},
        "best_epoch": run.best_epoch,
        "stop_reason": run.stop_reason,
        "epochs": run.epochs,
        "numbers": hasher.hexdigest(),
        "runs": trainer._runs,
    }


class StoppingPass:
    """A training pass that Ctrl-C ends after exactly so many steps of the run."""

    def __init__(self, train_pass: Any, step: int, per_epoch: int) -> None:
        self._pass, self._step, self._per_epoch = train_pass, step, per_epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pass, name)

    def run(
        self, epoch: int, params: Any, stop: Any, deadline: Any, first: int = 0, batches: int = -1
    ) -> tuple[int, str]:
        to_end = self._per_epoch - first
        left = self._step - epoch * self._per_epoch - first
        if not 0 < left <= (to_end if batches < 0 else batches):
            return self._pass.run(epoch, params, stop, deadline, first, batches)
        steps, status = self._pass.run(epoch, params, None, deadline, first, left)
        stop.set()
        return steps, "stopped" if status == "paused" else status


@contextmanager
def stopping(step: int) -> Iterator[None]:
    """Runs in this block end after a step."""

    def run(job: Any) -> None:
        run_fit(replace(job, train_pass=StoppingPass(job.train_pass, step, job.steps_per_epoch)))

    with mock.patch("hotloop.trainer.run_fit", run):
        yield


def whole(name: str) -> dict[str, Any]:
    """The result of the run without checkpoints or interruption."""
    if name not in _WHOLE:
        trainer, fit = make(name)
        _WHOLE[name] = result(trainer, trainer.fit(**fit), fit["X"])
    return _WHOLE[name]


_WHOLE: dict[str, dict[str, Any]] = {}


def interrupted(name: str, folder: Path, step: int, every: Any = "epoch", **more: Any) -> Any:
    """A run with checkpoints that ends after a step of the run; its trainer."""
    trainer, fit = make(name)
    with stopping(step):
        run = trainer.fit(**fit, checkpoint=hl.Checkpoint(folder, every), **more)
    assert run.stop_reason == "interrupt"
    return trainer


def resumed(name: str, path: Path, **more: Any) -> dict[str, Any]:
    """The result of a fresh trainer that goes on from a checkpoint to the end."""
    trainer, fit = make(name)
    return result(trainer, trainer.fit(**fit, resume=path, **more), fit["X"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _kill_at(call: str, n: int) -> None:
    """SIGKILL in place of the n-th call of a function that writing a checkpoint uses."""
    owner: Any = os if call == "fsync" else Path
    original, left = getattr(owner, call), [n]

    def dying(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, call, dying)


class _Slow(hl.Callback):
    """Tells when training begins, and takes a quarter of a second over it."""

    def on_fit_start(self, state: Any) -> None:
        print("started", flush=True)

    def on_epoch_end(self, state: Any) -> None:
        time.sleep(0.05)


def _main(name: str, folder: str, every: str, *options: str) -> None:
    trainer, fit = make(name, callbacks=[_Slow()] if "--slow" in options else [])
    checkpoint = hl.Checkpoint(folder, every="epoch" if every == "epoch" else int(every))
    if "--kill" in options:
        call, _, n = options[options.index("--kill") + 1].partition(":")
        _kill_at(call, int(n))
    run = trainer.fit(**fit, checkpoint=checkpoint, resume=folder if "--resume" in options else None)
    print(json.dumps(result(trainer, run, fit["X"])))


if __name__ == "__main__":
    _main(*sys.argv[1:])
