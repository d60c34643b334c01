# SPDX-License-Identifier: Apache-2.0
"""When checkpoints are written, which of them stay, how the best and the newest are found; and what happens
when the folder does not play along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.storage import checkpoint_file
from hotloop.storage.checkpoint import Timetable
from hotloop.storage.files import read_safetensors
from tests import runs
from tests.runs import interrupted, names, resumed, stopping, whole


def file(step: int, run: int = 0) -> str:
    return f"run{run:04d}-step{step:012d}.safetensors"


# --- when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "seconds"),
    [
        ("30s", 30),
        ("10 sec", 10),
        ("10min", 600),
        ("1.5 h", 5400),
        (" 2h ", 7200),
        (timedelta(days=1), 86400),
    ],
)
def test_times(every: Any, seconds: float) -> None:
    assert hl.Checkpoint("folder", every).every == timedelta(seconds=seconds)
    assert Timetable(timedelta(seconds=seconds), clock=lambda: 0.0).seconds_left() == [seconds]


@pytest.mark.parametrize(
    "every", ["10", "min", "10 minutes", "-1s", "1e3s", "0s", timedelta(0), timedelta(-1), "epochs", ""]
)
def test_what_is_no_time(every: Any) -> None:
    with pytest.raises(ValueError, match=r"\[Checkpoint\] every must be"):
        hl.Checkpoint("folder", every)


def test_a_timetable_by_epochs_steps_and_time() -> None:
    epochs, steps = Timetable("epoch"), Timetable(3)
    assert [epochs.is_due(step) for step in (1, 2)] == [False, False]
    assert epochs.is_due(2, epoch_end=True)
    assert (epochs.batches_left(5), epochs.seconds_left(), steps.seconds_left()) == (-1, [], [])
    assert [steps.batches_left(step) for step in range(5)] == [3, 2, 1, 3, 2]
    assert [steps.is_due(step, epoch_end=True) for step in (2, 3, 4)] == [False, True, False]

    now = [100.0]
    clock = Timetable(timedelta(seconds=10), clock=lambda: now[0])
    assert (clock.batches_left(5), clock.seconds_left(), clock.is_due(5)) == (-1, [10.0], False)
    now[0] = 109.0
    assert not clock.is_due(5, epoch_end=True)
    now[0] = 115.0
    assert clock.seconds_left() == [0.0]
    assert clock.is_due(5)
    now[0] = 117.0  # the file is on the disk
    clock.restart()
    assert clock.seconds_left() == [10.0]


def test_by_the_clock_in_mid_epoch_without_a_change_of_bits(tmp_path: Path, toy: Any, digest: Any) -> None:
    """Epochs that take many times as long as the time between two checkpoints."""
    X, y = toy.classes(3000, 64, 10)

    def run(**options: Any) -> Any:
        trainer = hl.Trainer(toy.mlp(64, 128, 10, dropout=0.1), threads=1)
        history = trainer.fit(X, y, validation=0.1, epochs=2, batch_size=1, **options)
        return history.history, digest(trainer)

    expected = run()
    assert (
        run(checkpoint=hl.Checkpoint(tmp_path / "a", every=timedelta(microseconds=500), keep=10000))
        == expected
    )
    steps = [int(name[12:24]) for name in names(tmp_path / "a")]
    within = [step for step in steps if step % 2700]
    assert len(within) > 3 and steps[-1] == 5400
    assert run(resume=tmp_path / "a" / file(within[len(within) // 2])) == expected
    shutil.rmtree(tmp_path / "a")
    assert run(checkpoint=hl.Checkpoint(tmp_path / "a", every="1h")) == expected
    assert names(tmp_path / "a") == [file(5400)]  # the one at the end


def test_a_time_limit_is_not_a_checkpoint(tmp_path: Path) -> None:
    trainer, fit = runs.make("batch_norm", callbacks=[lambda state: time.sleep(0.03)])
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, every="1h"), max_time=0.05)
    assert (run.stop_reason, run.epochs) == ("time", 2)
    assert names(tmp_path) == [file(8)]
    assert resumed("batch_norm", tmp_path) == whole("batch_norm")


# --- which stay -----------------------------------------------------------------------------------


def test_the_best_epochs_file_stays_as_long_as_it_is_the_best(tmp_path: Path) -> None:
    """Watched after every epoch: the newest two, and that of the best epoch so far."""
    seen: list[list[str]] = []

    class Look(hl.Callback):
        def on_epoch_end(self, state: Any) -> None:
            seen.append(names(tmp_path))

    trainer, fit = runs.make("batch_norm", callbacks=[Look()])  # 4 steps an epoch
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, keep=2))
    seen.append(names(tmp_path))
    values = run.history["b_accuracy"]
    best = [1 + int(np.argmax(values[:epoch])) for epoch in range(1, 6)]
    assert len(set(best)) > 1 and best[-1] < 4  # it moved, and then was overtaken
    for epoch in range(1, 6):
        wanted = {e for e in (epoch - 1, epoch, best[epoch - 1]) if e > 0}
        assert seen[epoch] == [file(4 * e) for e in sorted(wanted)], epoch


@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize("keep_best", [True, False])
def test_best_and_latest_find_their_files(restore_best: bool, keep_best: bool, tmp_path: Path) -> None:
    models: dict[int, Any] = {}

    class Keep(hl.Callback):
        def on_epoch_end(self, state: Any) -> None:
            models[state.epoch] = state.parameters["0.weight"].copy()

    trainer, fit = runs.make("batch_norm", restore_best=restore_best, callbacks=[Keep()])
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, keep=1, keep_best=keep_best))
    assert hl.Checkpoint.latest(tmp_path) == tmp_path / file(20)
    np.testing.assert_array_equal(hl.load(tmp_path).predict(fit["X"]), trainer.predict(fit["X"]))
    if keep_best or restore_best:
        best = hl.Checkpoint.best(tmp_path)
        assert best == tmp_path / file(4 * run.best_epoch if keep_best else 20)
        np.testing.assert_array_equal(hl.load(best).model.state_dict()["0.weight"], models[run.best_epoch])
    else:
        with pytest.raises(FileNotFoundError, match="no checkpoint holds the model of the best epoch"):
            hl.Checkpoint.best(tmp_path)


def test_the_best_file_of_steps_and_of_resumed_runs(tmp_path: Path) -> None:
    trainer, fit = runs.make("batch_norm")
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path / "steps", every=7, keep=1))
    assert names(tmp_path / "steps") == [file(20)]  # none was written at the end of the best epoch, 2
    assert run.best_epoch == 2
    assert hl.Checkpoint.best(tmp_path / "steps") == tmp_path / "steps" / file(20)  # but it holds its model

    trainer, fit = runs.make("batch_norm")
    with stopping(13):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path / "r", keep=1))
    assert names(tmp_path / "r") == [file(8), file(13)]
    resumed("batch_norm", tmp_path / "r", checkpoint=hl.Checkpoint(tmp_path / "r", keep=1))
    assert names(tmp_path / "r") == [file(8), file(20)]


def test_latest_and_load_pass_over_damaged_files(tmp_path: Path) -> None:
    trainer, fit = runs.make("dropout")
    trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, keep=3))
    newest, before = sorted(tmp_path.iterdir())[-1], sorted(tmp_path.iterdir())[-2]
    newest.write_bytes(newest.read_bytes()[:-1])
    for find in (hl.Checkpoint.latest, hl.load):
        with pytest.warns(
            hl.HotloopWarning, match=f"{newest.name} is damaged.*Taking {before.name}"
        ) as warned:
            found = find(tmp_path)
        assert warned[0].filename == __file__
    assert (found.history.epochs, hl.load(before).history.epochs) == (3, 3)
    (tmp_path / "empty").mkdir()
    for find in (hl.Checkpoint.latest, hl.Checkpoint.best, hl.load):
        with pytest.raises(FileNotFoundError, match="no checkpoint in this folder"):
            find(tmp_path / "empty")


# --- a folder that does not play along ------------------------------------------------------------


def check_usable_and_going_on(trainer: Any, fit: dict[str, Any], folder: Path) -> None:
    """On its best epoch, fit for another run; and the checkpoint before the failure leads to the end."""
    assert np.isfinite(trainer.predict(fit["X"])).all()
    trainer.callbacks = ()
    assert trainer.fit(**{**fit, "epochs": 1}).epochs == 1
    assert resumed("batch_norm", folder) == whole("batch_norm")


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a system call that says so, since for root there is no such folder."""
    opened = os.open

    def refuse(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if flags & os.O_CREAT and "step000000000008" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode, **more)

    trainer, fit = runs.make("batch_norm")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(PermissionError, match="step000000000008"):
            trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    assert names(tmp_path) == [file(4)]
    check_usable_and_going_on(trainer, fit, tmp_path)


def test_a_folder_that_is_deleted_in_mid_run(tmp_path: Path) -> None:
    """It is not made anew: the disk it was on may be gone, and the files would land elsewhere, unseen."""
    folder, saved = tmp_path / "run", tmp_path / "saved"

    def delete(state: Any) -> None:
        if state.epoch == 3:
            folder.rename(saved)

    trainer, fit = runs.make("batch_norm", callbacks=[delete])
    with pytest.raises(FileNotFoundError, match="step000000000012"):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(folder))
    assert not folder.exists()
    check_usable_and_going_on(trainer, fit, saved)


def test_a_file_that_is_deleted_under_our_hands_is_no_error(tmp_path: Path) -> None:
    def delete(state: Any) -> None:
        for path in tmp_path.iterdir():
            path.unlink()

    trainer, fit = runs.make("batch_norm", callbacks=[delete])
    run = trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    assert runs.result(trainer, run, fit["X"]) == whole("batch_norm")
    assert names(tmp_path) == [file(20)]


_FULL = """
import resource, signal, sys
sys.path[:0] = {path!r}
import hotloop as hl
from tests import runs
trainer, fit = runs.make("batch_norm")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write that is too long fails with EFBIG
try:
    def shrink(state):
        if state.epoch == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    trainer.callbacks = (shrink,)
    trainer.fit(**fit, checkpoint=hl.Checkpoint({folder!r}))
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs limits on files")
def test_a_write_that_the_system_cuts_short_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files fails in the midst of the bytes, as a full disk does."""
    script = _FULL.format(path=[str(Path(__file__).parents[2]), *sys.path], folder=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "27"  # EFBIG
    assert done.stdout.strip().endswith("step000000000012.safetensors")
    assert names(tmp_path) == [file(4), file(8)]
    assert resumed("batch_norm", tmp_path) == whole("batch_norm")


# --- files of other versions ----------------------------------------------------------------------


def test_a_setting_that_old_files_lack_stands_for_its_default(tmp_path: Path, monkeypatch: Any) -> None:
    """As a later version would: it knows of a setting more than the file does."""
    interrupted("dropout", tmp_path, 7)
    settings_of = checkpoint_file.settings_of
    monkeypatch.setattr(checkpoint_file, "ABSENT", {**checkpoint_file.ABSENT, "sparsity": 1})
    now = {"sparsity": 1}
    monkeypatch.setattr(checkpoint_file, "settings_of", lambda *job: {**settings_of(*job), **now})
    assert resumed("dropout", tmp_path) == whole("dropout")
    now["sparsity"] = 2
    with pytest.raises(hl.CheckpointError, match="sparsity differs, got 2; allowed 1"):
        resumed("dropout", tmp_path)
    assert (
        "sparsity" not in json.loads(read_safetensors(hl.Checkpoint.latest(tmp_path))[1]["run"])["settings"]
    )
