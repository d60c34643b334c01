# SPDX-License-Identifier: Apache-2.0
"""Learning curves: what they measure, and that the model they ask about never notices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.diagnosis import diagnose
from hotloop.engine.native import Data
from hotloop.probes.learning_curve import CurvePoint, LearningCurve, nested_order
from tests.illnesses import bundled, mlp, smooth

nn, optim = hl.nn, hl.optim


def many_inputs(rows: int, seed: int) -> tuple[Any, Any]:
    """Sixty inputs that all count, so that few rows cannot tell what each is worth."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 60)).astype(np.float32)
    return X, (X @ rng.normal(size=60) > 0).astype(np.int64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_data_helps_where_it_does(seed: int) -> None:
    X, y = many_inputs(400, seed)
    trainer = hl.Trainer(mlp(60, (32,), 2), optimizer=optim.AdamW(1e-3), seed=seed)
    run = trainer.fit(X, y, validation=0.3, epochs=20)
    curve = trainer.learning_curve(X, y, validation=0.3, epochs=20)
    found = {finding.rule: finding for finding in diagnose(run, curve)}
    assert "more_data" in found, str(curve)
    assert "more_data" not in [finding.rule for finding in run.diagnosis]
    assert found["more_data"].numbers["rows"] == curve.points[-1].rows == 280
    assert "560" in found["more_data"].next_step
    assert curve.exponent > 0.1


def test_more_data_does_not_help_a_model_that_knows_all() -> None:
    X, y = smooth(3000, 0)
    trainer = hl.Trainer(mlp(8, (64,), 1), optimizer=optim.AdamW(3e-3))
    run = trainer.fit(X, y, validation=0.2, epochs=30)
    curve = trainer.learning_curve(X, y, epochs=30)
    assert "more_data" not in [finding.rule for finding in diagnose(run, curve)]


def test_the_model_never_notices() -> None:
    X, y = bundled("digits")
    seen: list[int] = []
    trainer = hl.Trainer(
        nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)),
        callbacks=[lambda state: seen.append(state.epoch)], early_stopping=hl.EarlyStopping(3), progress=False,
    )  # fmt: skip
    run = trainer.fit(X, y, validation=0.2, epochs=2)
    before = {**trainer.model.state_dict(), **trainer.optimizer_state()}
    data = run.to_dict()
    trainer.learning_curve(X, y, fractions=(0.2, 1), epochs=2)
    after = {**trainer.model.state_dict(), **trainer.optimizer_state()}
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert trainer.history is run
    assert run.to_dict() == data
    assert (trainer._runs, seen) == (1, [1, 2])
    run.complete()
    assert run.evidence.look is not None  # the same model, as far as bits tell


def test_the_whole_is_the_run_itself() -> None:
    X, y = bundled("wine")
    trainer = hl.Trainer(mlp(13, (16,), 3), seed=4)
    curve = trainer.learning_curve(X, y, validation=0.2, fractions=(0.5, 1.0), epochs=7)
    run = hl.Trainer(mlp(13, (16,), 3), seed=4).fit(X, y, validation=0.2, epochs=7)
    last = curve.points[-1]
    assert (last.rows, last.epochs, last.val_loss) == (142, 7, min(run.history["val_loss"]))
    assert last.val_score == run.history["val_accuracy"][run.best_epoch - 1]
    assert (curve.points[0].rows, curve.points[0].epochs, curve.score) == (71, 14, "accuracy")


def test_an_untrained_model_stays_untrained() -> None:
    X, y = smooth(200, 0)
    trainer = hl.Trainer(nn.Linear(8, 1), "mse")
    curve = trainer.learning_curve(X, y, epochs=2)
    assert trainer.history is None
    assert not trainer.model.is_initialized
    assert curve.score == "r2"


def test_names_weights_and_a_last_batch_of_one_row(toy: Any) -> None:
    rng = np.random.default_rng(0)
    X = {"num": rng.normal(size=(130, 2)).astype(np.float32), "cat": rng.integers(0, 4, 130)}
    y, weight = X["cat"] % 2, rng.uniform(0.5, 1, 130)
    curve = hl.Trainer(toy.two_inputs()).learning_curve(
        X, y, fractions=(0.5, 1), validation={"odd": (X, y), "other": (X, y)}, epochs=1, sample_weight=weight
    )
    assert [point.rows for point in curve.points] == [
        64,
        130,
    ]  # not 65, of which BatchNorm could take no batch


def test_parts_hold_the_smaller_ones_and_every_class_in_its_share() -> None:
    labels = np.random.default_rng(0).choice(3, 1000, p=(0.7, 0.2, 0.1))
    order = nested_order(Data({"target": labels}, "index"), "cross_entropy", 5)
    assert sorted(order) == list(range(1000))
    for rows in (10, 100, 350, 1000):
        counts = np.bincount(labels[order[:rows]], minlength=3)
        assert (abs(counts - rows * np.bincount(labels) / 1000) <= 1.5).all()
    numbers = nested_order(Data({"target": np.zeros(50)}, "real"), "mse", 5)
    assert sorted(numbers) == list(range(50))
    assert list(numbers) != list(range(50))


def test_a_power_law_is_recovered() -> None:
    curve = LearningCurve(tuple(CurvePoint(n, 1, 0.0, 3 * n**-0.4) for n in (50, 100, 400)))
    assert curve.exponent == pytest.approx(0.4)
    assert curve.predict(800) == pytest.approx(3 * 800**-0.4)
    one = LearningCurve((CurvePoint(50, 1, 0.0, 1.0),))
    assert (one.exponent, one.predict(10)) == (None, None)
    assert json.loads(json.dumps(curve.to_dict()))["points"][0]["rows"] == 50
    assert str(curve).splitlines()[-1] == "validation loss ~ rows^-0.40"


def test_bad_arguments() -> None:
    X, y = smooth(60, 0)
    trainer = hl.Trainer(nn.Linear(8, 1))
    for fractions in ((), (0.5,), (0.0, 1.0), (0.5, 0.5)):
        with pytest.raises(ValueError, match="fractions"):
            trainer.learning_curve(X, y, fractions=fractions)
    for fractions in ((0.5, 1.5), (0.5, "all")):
        with pytest.raises((ValueError, TypeError), match="fractions"):
            trainer.learning_curve(X, y, fractions=fractions)
    with pytest.raises(TypeError, match="fractions"):
        trainer.learning_curve(X, y, fractions=0.5)
    with pytest.raises(ValueError, match="validation is None"):
        trainer.learning_curve(X, y, validation=None)
    with pytest.raises(RuntimeError, match="diverged"), pytest.warns(hl.HotloopWarning):
        hl.Trainer(mlp(8, (8,), 1), optimizer=optim.SGD(1e9)).learning_curve(X, y)


def test_the_plot_shows_both_curves_and_the_law() -> None:
    pytest.importorskip("matplotlib")
    curve = LearningCurve(tuple(CurvePoint(n, 1, 0.1, 3 * n**-0.4) for n in (50, 100, 400)), "r2")
    axes = curve.plot()
    assert [line.get_label() for line in axes.get_lines()] == ["training", "validation", "rows$^{-0.40}$"]
    assert axes.get_lines()[1].get_xdata().tolist() == [50, 100, 400]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "100", "400", "800"]
    assert curve.plot(axes) is axes
