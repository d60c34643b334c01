# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a run that was stopped anywhere, in any way, ends on the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from tests import runs
from tests.runs import interrupted, names, resumed, stopping, whole

SCRIPT = Path(runs.__file__)


def test_the_runs_use_what_they_say() -> None:
    results = {name: whole(name) for name in runs.RUNS}
    assert (results["dropout"]["stop_reason"], results["dropout"]["epochs"]) == ("early_stopping", 4)
    assert len(set(results["batch_norm"]["history"]["lr"])) > 1  # the plateau was reached
    assert results["batch_norm"]["best_epoch"] < 5  # so that a snapshot is kept beside the state in training
    assert {result["epochs"] for name, result in results.items() if name != "dropout"} == {5}
    trainer, fit = runs.make("dropout", seed=4)  # and bits tell runs apart
    assert runs.result(trainer, trainer.fit(**fit), fit["X"])["numbers"] != results["dropout"]["numbers"]


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", runs.RUNS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_interrupted_at_any_step_twice_it_ends_on_the_same_bits(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    every = data.draw(st.sampled_from(["epoch", 1, 2, 3, 7]))
    first, second = sorted(data.draw(st.lists(st.integers(1, 15), min_size=2, max_size=2, unique=True)))
    interrupted(name, folder, first, every)
    interrupted(name, folder, second, every, resume=folder)
    assert resumed(name, folder, checkpoint=hl.Checkpoint(folder, every)) == whole(name)


@pytest.mark.parametrize("name", runs.RUNS)
def test_checkpoints_change_nothing_and_each_leads_to_the_same_end(name: str, tmp_path: Path) -> None:
    trainer, fit = runs.make(name)
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, 2, keep=1000))
    assert runs.result(trainer, run, fit["X"]) == whole(name)
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 10
    for file in files[:: len(files) // 4]:
        assert resumed(name, file) == whole(name)
    ended = resumed(name, files[-1])  # nothing is left to do, and the same model comes back
    assert ended == whole(name)


def test_a_callback_that_stops_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    class Stop(hl.Callback):
        def on_epoch_end(self, state: Any) -> object:
            return state.epoch == 2

    trainer, fit = runs.make("dropout", callbacks=[Stop()])
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, every=1000))
    assert (run.stop_reason, run.epochs) == ("callback", 2)
    seen: list[tuple[int, int]] = []

    class Watch(hl.Callback):
        def on_fit_start(self, state: Any) -> None:
            seen.append((state.epoch, len(state.metrics)))

        def on_epoch_end(self, state: Any) -> None:
            seen.append((state.epoch, len(state.metrics)))

    trainer, fit = runs.make("dropout", callbacks=[Watch()])
    run = trainer.fit(**fit, resume=tmp_path)
    assert runs.result(trainer, run, fit["X"]) == whole("dropout")
    assert seen == [(epoch, len(run.history)) for epoch in range(2, run.epochs + 1)]


def test_the_time_limit_ends_after_the_step_in_hand_and_the_run_goes_on(tmp_path: Path) -> None:
    trainer, fit = runs.make("batch_norm")
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path), max_time=0)
    assert (run.stop_reason, run.epochs) == ("time", 0)
    assert int(trainer.optimizer_state()["0.weight.step"]) == 1
    assert names(tmp_path) == ["run0000-step000000000001.safetensors"]
    assert resumed("batch_norm", tmp_path) == whole("batch_norm")


def test_a_second_run_of_a_trainer_resumes_as_the_second(tmp_path: Path) -> None:
    trainer, fit = runs.make("dropout")
    trainer.fit(**fit)
    expected = runs.result(trainer, trainer.fit(**fit), fit["X"])
    assert expected["runs"] == 2
    other, fit = runs.make("dropout")
    checkpoint = hl.Checkpoint(tmp_path, keep=1, keep_best=False)
    other.fit(**fit, checkpoint=checkpoint)
    with stopping(7):
        other.fit(**fit, checkpoint=checkpoint)
    assert names(tmp_path) == ["run0001-step000000000007.safetensors"]
    assert resumed("dropout", tmp_path) == expected


def test_divergence_after_resuming_restores_what_it_would_have(toy: Any, tmp_path: Path) -> None:
    """The snapshot to roll back to travels too: the best epoch, and before there is one the start."""
    schedule = hl.schedules.Custom(lambda step: 1.0 if step < 10 else 1e30, name="explodes")
    for stop, text in ((10, "restored epoch 2"), (2, "restored epoch 2")):
        folder = tmp_path / str(stop)
        trainer, fit = toy.turning(schedule=schedule)
        with pytest.warns(hl.HotloopWarning, match=text):
            trainer.fit(**fit)
        expected = trainer.model[0].weight.data.copy()
        with stopping(stop):
            toy.turning(schedule=schedule)[0].fit(**fit, checkpoint=hl.Checkpoint(folder))
        again, fit = toy.turning(schedule=schedule)
        with pytest.warns(hl.HotloopWarning, match=f"in epoch 3, .*{text}"):
            again.fit(**fit, resume=folder)
        np.testing.assert_array_equal(again.model[0].weight.data, expected)


# --- processes that die ---------------------------------------------------------------------------


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("name", runs.RUNS)
def test_killed_and_resumed_in_a_new_process(name: str, tmp_path: Path) -> None:
    first = in_process(name, str(tmp_path), "3", "--kill", "fsync:6")
    assert first.returncode == -signal.SIGKILL, first.stderr
    last = in_process(name, str(tmp_path), "3", "--resume")
    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout) == whole(name)


#: fsync is called on the file and on its folder; 5 is within the third write, when the first file is pruned.
@pytest.mark.parametrize("point", ["fsync:1", "fsync:5", "fsync:6", "replace:1", "replace:3", "unlink:1"])
def test_killed_within_a_write_leaves_the_old_or_the_new_file(point: str, tmp_path: Path) -> None:
    assert in_process("batch_norm", str(tmp_path), "2", "--kill", point).returncode == -signal.SIGKILL
    complete = [path for path in tmp_path.iterdir() if path.name.startswith("run")]
    for path in complete:
        assert hl.load(path).history is not None
    if not complete:  # killed before the first was there: what is left of it must not stand in the way
        assert len(names(tmp_path)) == 1
        trainer, fit = runs.make("batch_norm")
        run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, 2))
        assert runs.result(trainer, run, fit["X"]) == whole("batch_norm")
    else:
        checkpoint = hl.Checkpoint(tmp_path, 2)
        assert resumed("batch_norm", tmp_path, checkpoint=checkpoint) == whole("batch_norm")
    # torn files are gone, and old ones but that of the best epoch
    assert names(tmp_path) == [f"run0000-step{s:012d}.safetensors" for s in (8, 18, 20)]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_signals_at_random_times(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "dropout", tmp_path, "1", "--slow"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(random.uniform(0.02, 0.2))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert json.loads(output)["stop_reason"] in ("interrupt", "epochs", "early_stopping")
    more = {"resume": tmp_path} if [n for n in names(tmp_path) if n.startswith("run")] else {}
    trainer, fit = runs.make("dropout")
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, 4), **more)
    assert runs.result(trainer, run, fit["X"]) == whole("dropout")
