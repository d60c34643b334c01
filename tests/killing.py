# SPDX-License-Identifier: Apache-2.0
"""Kills training runs at random times and lets them go on, in processes forked from this one.

As a script: ``python killing.py FOLDER KILLS SEED [--again]`` prints JSON: how many runs were killed, how many
of them before their first checkpoint, how far they had come, and those that ended on other bits than a run
never killed. With --again what goes on is killed too, again and again, until it comes through.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import hotloop as hl
from tests import runs

FORK = multiprocessing.get_context("fork")
EVERY = 7  # steps from one checkpoint to the next; 15 steps an epoch, so that most lie within one


class Ledger(hl.Callback):
    """A state that depends on every look it was given, and on their order."""

    every_n_batches = 4

    def __init__(self) -> None:
        self.state = {"digest": "", "looks": 0}

    def _look(self, what: str, state: Any) -> None:
        metrics = [what, state.step, *(value.hex() for value in state.metrics.values())]
        text = f"{self.state['digest']} {metrics}"
        self.state = {"digest": hashlib.blake2b(text.encode()).hexdigest(), "looks": self.state["looks"] + 1}

    def on_batch_end(self, state: Any) -> None:
        self._look("batch", state)

    def on_epoch_end(self, state: Any) -> None:
        self._look("epoch", state)

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = dict(state)


def make(kind: str) -> tuple[Any, dict[str, Any]]:
    """A run with dropout, validation and a callback with a state; and, by kind, what else ends or slows it."""
    rng = np.random.Generator(np.random.PCG64(1))
    X = rng.normal(size=(300, 6)).astype(np.float32)
    y = (X @ rng.normal(size=(6, 3)) + rng.normal(size=(300, 3))).argmax(axis=1)
    model = hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.ReLU(), hl.nn.Dropout(0.3), hl.nn.Linear(16, 3))
    schedule = {
        "schedule": hl.schedules.Cosine(warmup=0.1),
        "plateau": hl.schedules.ReduceOnPlateau(0.5, 0, warmup=20),
    }[kind]
    trainer = hl.Trainer(
        model, optimizer=hl.optim.AdamW(0.005), schedule=schedule, progress=False, seed=2, callbacks=[Ledger()],
        early_stopping=hl.EarlyStopping(patience=4, min_delta=0.02), clip_norm=1.0,
    )  # fmt: skip
    return trainer, {
        "X": X[:240],
        "y": y[:240],
        "validation": (X[240:], y[240:]),
        "epochs": 30,
        "batch_size": 16,
    }


class Begin(hl.Callback):
    """Tells when training begins, so that no kill is wasted on what comes before."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def on_fit_start(self, state: Any) -> None:
        self._pipe.send("begin")


def run(kind: str, folder: Path | None, pipe: Connection) -> dict[str, Any]:
    """The run, from its newest checkpoint if there is one; what it must end on."""
    trainer, fit = make(kind)
    trainer.callbacks += (Begin(pipe),)
    more: dict[str, Any] = {}
    if folder is not None:
        more["checkpoint"] = hl.Checkpoint(folder, EVERY)
        if any(folder.glob("run*")):
            more["resume"] = folder
    history = trainer.fit(**fit, **more)
    ledger = trainer.callbacks[0].state
    return {**runs.result(trainer, history, fit["X"]), "ledger": ledger, "seconds": history.seconds}


def _child(kind: str, folder: Path | None, pipe: Connection) -> None:
    pipe.send(run(kind, folder, pipe))


def attempt(kind: str, folder: Path | None, kill_after: float | None) -> dict[str, Any] | None:
    """The result of the run in a process of its own; None if it was killed."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_child, args=(kind, folder, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "begin"
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    try:
        found: dict[str, Any] = ours.recv()
    except (EOFError, OSError):
        found = {}
    process.join()
    return found or None


def main(place: str, kills: str, seed: str, *options: str) -> None:
    rng = random.Random(int(seed))
    kinds = ("schedule", "plateau")
    wholes = {kind: attempt(kind, None, None) for kind in kinds}
    seconds = {kind: (attempt(kind, Path(place) / f"whole-{kind}", None) or {})["seconds"] for kind in kinds}
    killed, early, wrong, reached = 0, 0, [], []
    while killed < int(kills):
        kind = kinds[killed % 2]
        folder = Path(place) / f"{len(reached)}-{killed}-{rng.random()}"
        folder.mkdir()
        found = attempt(kind, folder, rng.uniform(0, seconds[kind]))
        while found is None:
            killed += 1
            files = sorted(folder.glob("run*"))
            early += not files
            reached += [int(files[-1].stem.partition("-step")[2])] if files else []
            again = rng.uniform(0, seconds[kind] / 2) if "--again" in options else None
            found = attempt(kind, folder, again)
        whole = wholes[kind]
        assert whole is not None
        if any(found[key] != whole[key] for key in whole if key != "seconds"):
            wrong.append(folder.name)
    ends = {kind: (whole or {})["stop_reason"] for kind, whole in wholes.items()}
    print(json.dumps({"killed": killed, "early": early, "reached": reached, "wrong": wrong, "ends": ends}))


if __name__ == "__main__":
    main(*sys.argv[1:])
