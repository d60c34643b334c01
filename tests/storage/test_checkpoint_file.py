# SPDX-License-Identifier: Apache-2.0
"""Files of checkpoints: which are taken, which are refused, and what is left when a write fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.storage import checkpoint_file
from hotloop.storage.files import read_safetensors, write_safetensors
from tests import runs
from tests.runs import interrupted, names, resumed, stopping, whole

# --- refusals -------------------------------------------------------------------------------------


def _with(**changes: Any) -> Any:
    """Changes of fit's arguments; of the trainer where the name is one of its attributes."""

    def apply(trainer: Any, fit: dict[str, Any]) -> None:
        for name, value in changes.items():
            if name in fit or name in ("shuffle",):
                fit[name] = value(fit[name]) if callable(value) else value
            else:
                setattr(trainer, name, value)

    return apply


def _nudge(array: Any) -> Any:
    copy = np.array(array)
    copy.flat[-1] += 1e-3
    return copy


REFUSALS: dict[str, tuple[Any, str]] = {
    "epochs": (_with(epochs=6), r"epochs differs, got 6; allowed 5"),
    "batch_size": (_with(batch_size=15), "batch_size differs, got 15; allowed 16"),
    "shuffle": (_with(shuffle=False), "shuffle differs, got False; allowed True"),
    "loss": (_with(loss=hl.losses.CrossEntropy()), "loss.label_smoothing differs, got 0.0; allowed 0.1"),
    "schedule": (
        _with(schedule=hl.schedules.Cosine(warmup=0.1)),
        "schedule.warmup differs, got 0.1; allowed 0.2",
    ),
    "other schedule": (_with(schedule=hl.schedules.Linear()), "schedule.kind differs, got 'linear'"),
    "clip_norm": (_with(clip_norm=None), "clip_norm differs, got None; allowed 1.0"),
    "clip_value": (_with(clip_value=0.5), "clip_value differs, got 0.5; allowed None"),
    "early stopping": (_with(early_stopping=hl.EarlyStopping(4)), "early_stopping.patience differs, got 4"),
    "monitor": (_with(monitor="val_accuracy"), "monitor differs, got 'val_accuracy'; allowed 'val_loss'"),
    "restore_best": (_with(restore_best=False), "restore_best differs"),
    "metrics": (_with(metrics=None), "metrics differs"),
    "validation": (_with(validation=0.3), "training data.x.shape.0 differs"),
    "no validation": (_with(validation=None, monitor="loss", early_stopping=None), "early_stopping differs"),
    "data": (_with(X=_nudge), r"training data.x.digest differs"),
    "labels": (_with(y=lambda y: y[::-1]), "training data.*differs"),
    "no weights": (_with(sample_weight=None), r"training data.sample_weight differs, got nothing"),
    "weights": (_with(sample_weight=_nudge), r"sample_weight.digest differs"),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    interrupted("dropout", folder, 7)
    return folder


def check_refused(trainer: Any, fit: dict[str, Any], path: Path, text: str, digest: Any) -> None:
    trainer.fit(**fit, dry_run=True)  # draws the weights
    before, files = digest(trainer), names(path)
    with pytest.raises(hl.CheckpointError, match=text):
        trainer.fit(**fit, resume=path, checkpoint=hl.Checkpoint(path))
    assert digest(trainer) == before
    assert names(path) == files
    assert (trainer.history, trainer._runs) == (None, 0)


@pytest.mark.parametrize("what", REFUSALS)
def test_another_run_is_refused_before_anything_changes(what: str, stored: Path, digest: Any) -> None:
    change, text = REFUSALS[what]
    trainer, fit = runs.make("dropout")
    change(trainer, fit)
    check_refused(trainer, fit, stored, text, digest)


def test_another_model_optimiser_or_seed_is_refused(stored: Path, digest: Any) -> None:
    _, fit = runs.make("dropout")
    like = runs.make("dropout")[0]
    options = {name: getattr(like, name) for name in ("loss", "schedule", "early_stopping", "clip_norm")}
    layers = [hl.nn.Linear(6, 8), hl.nn.GELU(), hl.nn.Dropout(0.4), hl.nn.Linear(8, 3)]
    adam = hl.optim.AdamW(0.02)
    for model, optimizer, seed, text in (
        (hl.nn.Sequential(*layers), adam, 3, r"graph.nodes.*differs, got 0.4; allowed 0.3"),
        (like.model, hl.optim.AdamW(0.03), 3, "optimizer.lr differs, got 0.03; allowed 0.02"),
        (like.model, hl.optim.SGD(0.02), 3, "optimizer.kind differs, got 'sgd'"),
        (like.model, adam, 4, "seed differs, got 4; allowed 3"),
    ):
        trainer = hl.Trainer(model, optimizer=optimizer, seed=seed, **options)
        check_refused(trainer, fit, stored, text, digest)


def test_other_validation_sets_are_refused(tmp_path: Path, digest: Any) -> None:
    interrupted("batch_norm", tmp_path, 3)
    _, fit = runs.make("batch_norm")
    (X, y), b = fit["validation"]["a"], fit["validation"]["b"]
    for sets, text in (
        ({"a": (X, 2 - y), "b": b}, "validation.a.target.digest differs"),
        ({"a": (X, y), "b": (*b[:2], _nudge(b[2]))}, "validation.b.sample_weight.digest differs"),
        ({"a": (X, y), "b": b, "c": b}, "validation.c differs, got .*; allowed nothing"),
    ):
        trainer = runs.make("batch_norm")[0]
        check_refused(trainer, {**fit, "validation": sets}, tmp_path, text, digest)


def test_another_callable_is_refused_by_its_name(tmp_path: Path, digest: Any) -> None:
    interrupted("callable", tmp_path, 3)

    def other(prediction: Any, target: Any) -> Any:
        return runs.own_loss(prediction, target)

    trainer, fit = runs.make("callable")
    trainer.loss = other
    check_refused(trainer, fit, tmp_path, r"loss.name differs, got '.*other'; allowed '.*own_loss'", digest)
    trainer, fit = runs.make("callable")
    trainer.schedule = hl.schedules.Custom(lambda step: 1.0)
    check_refused(trainer, fit, tmp_path, r"schedule.name differs, got '.*<lambda>'", digest)


def test_another_instruction_set_is_refused(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "copy")
    file = sorted((tmp_path / "copy").iterdir())[-1]
    tensors, metadata = read_safetensors(file)
    data = json.loads(metadata["run"])
    data["settings"]["instruction set"] = "other"
    write_safetensors(file, tensors, {**metadata, "run": json.dumps(data)})
    with pytest.raises(hl.CheckpointError, match=r"instruction set differs, got .*; allowed 'other'"):
        resumed("dropout", file)


def test_what_may_differ(stored: Path) -> None:
    trainer, fit = runs.make("dropout", threads=2, callbacks=[lambda state: None], on_divergence="raise")
    run = trainer.fit(**fit, resume=stored, max_time=1000)
    assert runs.result(trainer, run, fit["X"]) == whole("dropout")


# --- files ----------------------------------------------------------------------------------------


def test_a_checkpoint_is_the_model_that_the_run_ended_with(tmp_path: Path) -> None:
    for name in ("dropout", "batch_norm", "regression", "two_inputs"):
        trainer = interrupted(name, tmp_path / name, 13)
        again, (_, fit) = hl.load(tmp_path / name / "run0000-step000000000013.safetensors"), runs.make(name)
        np.testing.assert_array_equal(again.predict(fit["X"]), trainer.predict(fit["X"]))
        assert again.history.best_epoch == trainer.history.best_epoch
        assert again.history.history == trainer.history.history
        assert again.history.stop_reason == "interrupt"
        run = again.fit(**fit, resume=tmp_path / name)  # without the code that described it
        assert runs.result(again, run, fit["X"]) == whole(name)


def test_old_files_go_and_the_names_sort_by_step(tmp_path: Path) -> None:
    trainer, fit = runs.make("batch_norm")  # 4 steps an epoch
    trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path / "new" / "folder", every=3, keep=3))
    assert names(tmp_path / "new" / "folder") == [f"run0000-step{s:012d}.safetensors" for s in (15, 18, 20)]
    trainer, fit = runs.make("batch_norm")
    trainer.fit(**fit, checkpoint=hl.Checkpoint(str(tmp_path / "e"), keep_best=False))
    assert names(tmp_path / "e") == [f"run0000-step{s:012d}.safetensors" for s in (16, 20)]


def test_later_files_stay_when_a_run_goes_on_from_an_older_one(tmp_path: Path) -> None:
    trainer, fit = runs.make("batch_norm")
    trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, every=6, keep=10))
    trainer, fit = runs.make("batch_norm")
    with stopping(7):
        checkpoint = hl.Checkpoint(tmp_path, every=1000, keep=1)
        trainer.fit(**fit, resume=sorted(tmp_path.iterdir())[0], checkpoint=checkpoint)
    assert names(tmp_path) == [f"run0000-step{s:012d}.safetensors" for s in (7, 12, 18, 20)]
    assert resumed("batch_norm", tmp_path) == whole("batch_norm")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    interrupted("dropout", tmp_path, 7)
    before = names(tmp_path)
    trainer, fit = runs.make("dropout")
    with pytest.raises(FileExistsError, match="already holds checkpoints of such a run, as run0000-step0"):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    assert names(tmp_path) == before
    assert trainer.history is None


def test_the_newest_whole_file_is_taken(tmp_path: Path) -> None:
    interrupted("dropout", tmp_path, 8, every=3)
    third, sixth = (tmp_path / f"run0000-step{s:012d}.safetensors" for s in (6, 8))
    data = sixth.read_bytes()
    damages = {"torn": data[: len(data) // 2], "flipped": data[:-1] + bytes([data[-1] ^ 1]), "empty": b""}
    for what, damaged in damages.items():
        sixth.write_bytes(damaged)
        with pytest.raises(hl.CheckpointError, match="damaged"):
            resumed("dropout", sixth)
        trainer, fit = runs.make("dropout")
        with pytest.warns(hl.HotloopWarning, match=f"damaged.* Taking {third.name} instead") as warned:
            run = trainer.fit(**fit, resume=tmp_path)
        assert warned[0].filename == __file__, what
        assert runs.result(trainer, run, fit["X"]) == whole("dropout")
    third.write_bytes(b"no")
    with pytest.raises(hl.CheckpointError, match=f"{sixth.name} is damaged"):
        resumed("dropout", tmp_path)


def test_files_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint in this folder"):
        resumed("dropout", tmp_path)
    with pytest.raises(FileNotFoundError):
        resumed("dropout", tmp_path / "none")
    trainer, fit = runs.make("dropout")
    trainer.fit(**{**fit, "epochs": 1})
    trainer.save(tmp_path / "model")
    with pytest.raises(hl.CheckpointError, match="holds no run to resume"):
        resumed("dropout", tmp_path / "model")


def test_changed_files_are_refused(stored: Path, tmp_path: Path) -> None:
    file = sorted(stored.iterdir())[-1]
    tensors, metadata = read_safetensors(file)
    run = json.loads(metadata["run"])

    def check(text: str, *, without: str = "", totals: Any = None, **changes: Any) -> None:
        left = {name: value for name, value in tensors.items() if name != without}
        if totals is not None:
            left["run/totals"] = totals
        data = {**run, **{key: value for key, value in changes.items() if key != "record"}}
        data["record"] = {**run["record"], **changes.get("record", {})}
        write_safetensors(tmp_path / "f", left, {**metadata, "run": json.dumps(data)})
        with pytest.raises(hl.CheckpointError, match=text):
            resumed("dropout", tmp_path / "f")

    check("run version 2; this hotloop reads up to 1: upgrade it", version=2)
    check("unknown states 'odd'", main="odd")
    check("'run/other/3.bias' is missing|'3.bias' is missing", without="run/other/3.bias")
    check("'run/totals'", without="run/totals")
    check(r"\[totals\] got float64 \(9,\)", totals=np.zeros(9))
    check("impossible position", record={"batch": -1})
    check("impossible position", record={"epoch": 4})
    check("position, is missing", record={"batch": 6})
    check("unknown stop reason", record={"history": {**run["record"]["history"], "stop_reason": "odd"}})


def test_another_version_is_told(stored: Path, tmp_path: Path) -> None:
    file = sorted(stored.iterdir())[-1]
    tensors, metadata = read_safetensors(file)
    run = {**json.loads(metadata["run"]), "hotloop": "0.0.1"}
    write_safetensors(tmp_path / "old", tensors, {**metadata, "run": json.dumps(run)})
    trainer, fit = runs.make("dropout")
    with pytest.warns(hl.HotloopWarning, match=r"was written by hotloop 0\.0\.1") as warned:
        trainer.fit(**fit, resume=tmp_path / "old")
    assert warned[0].filename == __file__


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_leaves_the_checkpoint_before_it(code: int, tmp_path: Path) -> None:
    fsync, left = os.fsync, [3]  # the second file's

    def failing(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    trainer, fit = runs.make("batch_norm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match=os.strerror(code)) as raised:
            trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path, every=3))
    assert raised.value.errno == code
    assert str(raised.value.filename).endswith("step000000000006.safetensors")
    assert names(tmp_path) == ["run0000-step000000000003.safetensors"]
    assert np.isfinite(trainer.predict(fit["X"])).all()  # usable, on its best epoch
    assert resumed("batch_norm", tmp_path) == whole("batch_norm")


def test_a_folder_that_cannot_be_made_is_told_before_training(tmp_path: Path, digest: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    trainer, fit = runs.make("dropout")
    trainer.fit(**fit, dry_run=True)
    before = digest(trainer)
    with pytest.raises(OSError, match="file"):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path / "file"))
    assert digest(trainer) == before


def test_a_dry_run_checks_the_checkpoint_and_leaves_everything(stored: Path, tmp_path: Path) -> None:
    trainer, fit = runs.make("dropout")
    checkpoint = hl.Checkpoint(tmp_path / "new")
    assert trainer.fit(**fit, resume=stored, checkpoint=checkpoint, dry_run=True).epochs == 0
    assert names(tmp_path) == []
    with pytest.raises(hl.CheckpointError, match="epochs differs"):
        trainer.fit(**{**fit, "epochs": 9}, resume=stored, dry_run=True)


def test_seconds_add_up(tmp_path: Path) -> None:
    trainer = interrupted("dropout", tmp_path, 7)
    file = sorted(tmp_path.iterdir())[-1]
    so_far = checkpoint_file.read(file).record.seconds
    assert 0 < so_far <= trainer.history.seconds
    trainer, fit = runs.make("dropout")
    assert trainer.fit(**fit, resume=file).seconds > so_far


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"every": "step"}, ValueError, "\"epoch\", a number of steps, or a time .* got 'step'"),
        ({"every": 0}, ValueError, "every must be >= 1"),
        ({"every": 1.5}, TypeError, "every must be a whole number"),
        ({"keep": 0}, ValueError, "keep must be >= 1"),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        hl.Checkpoint("folder", **arguments)


def test_checkpoint_must_be_one(tmp_path: Path) -> None:
    trainer, fit = runs.make("dropout")
    with pytest.raises(TypeError, match=r"checkpoint must be an hl.Checkpoint"):
        trainer.fit(**fit, checkpoint=str(tmp_path))
