# SPDX-License-Identifier: Apache-2.0
"""The dry run: it does what a run's first steps do, on a copy, and reports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests import runs


@pytest.mark.parametrize("name", list(runs.RUNS))
def test_nothing_changes_bit_for_bit(name: str, digest: Any) -> None:
    alone, fit = runs.make(name)
    trainer, _ = runs.make(name)
    for each in (alone, trainer):
        each.fit(**{**fit, "epochs": 1})
    before, history = digest(trainer), trainer.history
    run = trainer.fit(**fit, dry_run=True)
    assert (run.epochs, run.history, run.stop_reason, run.best_epoch) == (0, {}, "dry_run", None)
    assert digest(trainer) == before == digest(alone)
    assert trainer.history is history
    for keep in ({}, {"reset_optimizer": False}):
        trainer.fit(**fit, **keep, dry_run=True)
        assert trainer.fit(**fit, **keep).history == alone.fit(**fit, **keep).history
        assert digest(trainer) == digest(alone)


@pytest.mark.parametrize("name", ["dropout", "batch_norm", "callable", "accumulated", "averaged"])
@pytest.mark.parametrize("keep", [False, True])
def test_the_two_batches_are_those_of_the_run(name: str, keep: bool) -> None:
    """In a run of two batches an epoch, their mean loss and what validation then says are the first epoch's."""
    trainer, fit = runs.make(name)
    trainer.monitor = "val_loss"
    if name != "callable":
        trainer.loss = "cross_entropy"  # with weights of classes the mean of batches is not that of the epoch
    trainer.fit(**{**fit, "epochs": 1, "validation": 0.2})
    rows = min(32, len(fit["X"]))
    fit = {"X": fit["X"][:rows], "y": fit["y"][:rows], "validation": (fit["X"], fit["y"]), "epochs": 2}
    fit |= {"batch_size": 16, "reset_optimizer": not keep}
    dry = trainer.fit(**fit, dry_run=True).dry_run
    run = trainer.fit(**fit)
    assert len(dry.losses) == 2
    assert np.mean(dry.losses) == pytest.approx(run.history["loss"][0], rel=1e-12)
    for key, value in dry.validation["val"].items():
        # More rows than were tried would say something else.
        assert value == run.history[f"val_{key}"][0]


def test_at_most_two_batches_of_validation_data_are_looked_at(toy: Any) -> None:
    X, y = toy.classes(2000)
    wrong = np.where(np.arange(2000) < 512, y, (y + 1) % 3)
    trainer = hl.Trainer(toy.mlp(6, 8, 3))
    full = trainer.fit(X, y, validation=(X, y), dry_run=True).dry_run
    part = trainer.fit(X, y, validation={"a": (X, wrong), "b": (X[:5], y[:5])}, dry_run=True).dry_run
    assert part.validation["a"] == full.validation["val"]
    assert set(part.validation) == {"a", "b"}


def test_callbacks_are_not_called(toy: Any) -> None:
    class Fail(hl.Callback):
        def on_fit_start(self, state: Any) -> None:
            raise AssertionError

        on_epoch_end = on_fit_end = on_fit_start

    trainer, fit = toy.turning(callbacks=[Fail()])
    assert trainer.fit(**fit, dry_run=True).dry_run is not None
    with pytest.raises(AssertionError):
        trainer.fit(**fit)


def test_the_report_describes_the_run(toy: Any) -> None:
    X, y = toy.classes(300)
    trainer = hl.Trainer(toy.mlp(6, 8, 3), threads=1)
    run = trainer.fit(X, y, validation=(X, y), epochs=7, batch_size=64, dry_run=True)
    dry, cost = run.dry_run, trainer.plan(X, y, batch_size=64)
    assert (dry.rows, dry.batch_size, dry.epochs, dry.steps_per_epoch, dry.threads) == (300, 64, 7, 5, 1)
    assert dry.inputs == {"x": ((64, 6), "float32"), "target": ((64,), "int32")}
    assert dry.output == (64, 3)
    assert dry.parameters == cost.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert cost.peak_bytes < dry.peak_bytes < 2 * cost.peak_bytes + 2**20  # and the evaluation's program
    assert 0 < dry.seconds_per_step < dry.seconds_per_epoch
    assert dry.seconds == pytest.approx(7 * dry.seconds_per_epoch)
    assert dry.warnings == ()
    lines = str(dry).splitlines()
    assert [line.split()[0] for line in lines] == [
        "data",
        "shapes",
        "model",
        "loss",
        "val",
        "time",
        "warnings",
    ]
    assert "x (64, 6) float32, target (64,) int32 -> (64, 3)" in lines[1]
    assert lines[-1].split() == ["warnings", "none"]
    assert repr(run) == f"History(dry run)\n{dry}"


def test_named_inputs_are_described(toy: Any) -> None:
    trainer, fit = runs.make("two_inputs")
    dry = trainer.fit(**fit, dry_run=True).dry_run
    assert dry.inputs["cat"][0] == (16,)
    assert dry.inputs["num"][0] == (16, 2)


@pytest.mark.parametrize(
    ("options", "fit", "text"),
    [
        ({"optimizer": hl.optim.SGD(1e38)}, {}, "the loss of batch 2 is "),
        ({"early_stopping": hl.EarlyStopping(5)}, {"epochs": 5}, "patience=5 cannot act within 5 epochs"),
        ({}, {"max_time": 1e-6, "epochs": 1000}, "and max_time=1e-06 ends it earlier"),
        ({"monitor": "val_r2"}, {"validation": "one row"}, "val_r2 is nan on the first rows of 'val'"),
        ({"loss": runs.own_loss}, {}, "a loss in Python is slow"),
    ],
)
def test_what_would_go_wrong_is_told(
    toy: Any, options: dict[str, Any], fit: dict[str, Any], text: str, digest: Any
) -> None:
    X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)
    if "validation" in fit or "early_stopping" in options:
        fit = {**fit, "validation": (X[:1], X[:1])}
    trainer = hl.Trainer(hl.nn.Linear(1, 1), **{"loss": "mse", **options})
    trainer.predict(X)
    before = digest(trainer)
    run = trainer.fit(X, 3 * X, **fit, dry_run=True)
    assert any(text in warning for warning in run.dry_run.warnings), run.dry_run
    assert all(f"warning  {warning}" in str(run.dry_run) for warning in run.dry_run.warnings)
    assert digest(trainer) == before


def test_errors_are_those_of_fit(toy: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 3), schedule=hl.schedules.Cosine(warmup=1000))
    with pytest.raises(ValueError, match="warmup is longer than the run"):
        trainer.fit(X, y, epochs=2, dry_run=True)


def test_the_folder_of_checkpoints_is_tried_and_left_as_it_was(toy: Any, tmp_path: Path) -> None:
    trainer, fit = toy.turning()
    fit["epochs"] = 2
    new = tmp_path / "not" / "there"
    trainer.fit(**fit, checkpoint=hl.Checkpoint(new), dry_run=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            trainer.fit(**fit, checkpoint=hl.Checkpoint(path), dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_holds_such_a_run_is_refused_as_by_fit(toy: Any, tmp_path: Path) -> None:
    trainer, fit = toy.turning()
    trainer.fit(**{**fit, "epochs": 2}, checkpoint=hl.Checkpoint(tmp_path))
    there = sorted(tmp_path.iterdir())
    other, _ = toy.turning()
    with pytest.raises(FileExistsError, match="already holds checkpoints"):
        other.fit(**{**fit, "epochs": 2}, checkpoint=hl.Checkpoint(tmp_path), dry_run=True)
    assert sorted(tmp_path.iterdir()) == there


def test_a_run_to_resume_is_tried_where_it_stands(tmp_path: Path, digest: Any) -> None:
    """In the middle of its second epoch; the next batches are not those of the first."""
    runs.interrupted("dropout", tmp_path, 7)
    trainer, fit = runs.make("dropout")
    trainer.predict(fit["X"])
    before = digest(trainer)
    dry = trainer.fit(**fit, resume=tmp_path, dry_run=True).dry_run
    fresh = trainer.fit(**fit, dry_run=True).dry_run
    assert len(dry.losses) > 0
    assert set(dry.losses).isdisjoint(fresh.losses)
    assert dry.seconds == pytest.approx(dry.seconds_per_epoch * (runs.EPOCHS - 7 // dry.steps_per_epoch))
    assert digest(trainer) == before
    assert trainer.fit(**fit, resume=tmp_path).history == runs.make("dropout")[0].fit(**fit).history
    done = runs.make("dropout")[0].fit(**fit, resume=tmp_path, checkpoint=hl.Checkpoint(tmp_path))
    assert done.stop_reason in ("epochs", "early_stopping")
    ended = runs.make("dropout")[0].fit(**fit, resume=tmp_path, dry_run=True).dry_run
    assert ended.losses == ()
    assert "nothing left to train" in str(ended)
