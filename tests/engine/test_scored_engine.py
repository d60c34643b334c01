# SPDX-License-Identifier: Apache-2.0
"""Scores of evaluation sets during a run: whose they are, what follows from them, and what a file keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl

sklearn_metrics = pytest.importorskip("sklearn.metrics")

METRICS = ("auto", "top2_accuracy", "f1_macro", "neg_log_loss")


def trainer_of(toy: Any, **options: Any) -> Any:
    return hl.Trainer(toy.mlp(6, 8, 3), progress=False, **{"metrics": METRICS, **options})


def test_each_evaluation_set_is_scored_and_training_is_not(toy: Any) -> None:
    X, y = toy.classes(200)
    weight = np.random.default_rng(0).uniform(0, 2, 60)
    sets = {"val": (X[100:140], y[100:140]), "test2": (X[140:], y[140:], weight)}
    trainer = trainer_of(toy, restore_best=False)
    run = trainer.fit(X[:100], y[:100], validation=sets, epochs=3)
    names = ["loss", "accuracy", "top2_accuracy", "f1_macro", "neg_log_loss"]
    assert list(run.history) == [
        *names[:3], *(f"{s}_{name}" for s in sets for name in names), "lr",
    ]  # fmt: skip
    for name, (X_, y_, *w) in sets.items():
        proba, labels, weights = trainer.predict_proba(X_), trainer.predict_label(X_), w[0] if w else None
        expected = {
            "f1_macro": sklearn_metrics.f1_score(y_, labels, average="macro", sample_weight=weights),
            "neg_log_loss": -sklearn_metrics.log_loss(y_, proba, sample_weight=weights),
            "top2_accuracy": sklearn_metrics.top_k_accuracy_score(y_, proba, k=2),  # over rows, as accuracy
            "accuracy": sklearn_metrics.accuracy_score(y_, labels),
        }
        found = trainer.evaluate(X_, y_, sample_weight=weights)
        for metric, value in expected.items():
            assert run.history[f"{name}_{metric}"][-1] == pytest.approx(value, rel=1e-5), (name, metric)
            assert found[metric] == run.history[f"{name}_{metric}"][-1]
        # the loss is of the weighted rows, as the scorer's is
        assert found["neg_log_loss"] == pytest.approx(-found["loss"], rel=1e-5)


def test_scorers_change_nothing_of_the_run(toy: Any, digest: Any) -> None:
    X, y = toy.classes(120)
    seen = []
    for metrics in (("accuracy",), ("accuracy", "f1_macro")):
        trainer = trainer_of(toy, metrics=metrics)
        run = trainer.fit(X, y, validation=0.25, epochs=3)
        seen.append((digest(trainer), *run.history["val_loss"]))
    assert seen[0] == seen[1]


def test_the_monitored_scorer_is_maximised(toy: Any) -> None:
    """Among three epochs of a falling score the first is the best, though a loss would fall too."""
    X, y = toy.classes(200)
    y_wrong = (y + 1) % 3
    trainer = trainer_of(toy, monitor="val_neg_log_loss", early_stopping=hl.EarlyStopping(patience=2))
    run = trainer.fit(X, y, validation=(X, y_wrong), epochs=20)
    scores = run.history["val_neg_log_loss"]
    assert scores[0] > scores[1] > scores[2]
    assert (run.best_epoch, run.stop_reason, run.epochs) == (1, "early_stopping", 3)
    assert trainer.evaluate(X, y_wrong)["neg_log_loss"] == scores[0]


def test_a_plateau_of_a_scorer_is_one_that_does_not_rise(toy: Any) -> None:
    X, y = toy.classes(200)
    for target, rates in ((y, [0.1] * 4), ((y + 1) % 3, [0.1, 0.1, 0.05, 0.025])):
        optimizer, schedule = hl.optim.SGD(0.1), hl.schedules.ReduceOnPlateau(0.5, 0)
        trainer = trainer_of(toy, monitor="val_neg_log_loss", schedule=schedule, optimizer=optimizer)
        run = trainer.fit(X, y, validation=(X, target), epochs=4)
        assert run.history["lr"] == pytest.approx(rates)


def test_regression_scores(toy: Any) -> None:
    X, _ = toy.classes(100)
    y = X @ np.arange(6) + 10
    trainer = hl.Trainer(
        toy.mlp(6, 8, 1), "mse", metrics=["r2", "neg_max_error", "neg_median_absolute_error"]
    )
    run = trainer.fit(X, y, validation=(X[:30], y[:30]), epochs=2)
    assert "r2" in run.history and "neg_max_error" not in run.history
    prediction = trainer.predict(X[:30])[:, 0]
    found = trainer.evaluate(X[:30], y[:30])
    assert found["neg_max_error"] == pytest.approx(-np.abs(prediction - y[:30]).max(), rel=1e-5)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(y[:30], prediction), rel=1e-5)


def test_binary_scores(toy: Any) -> None:
    X, y = toy.classes(100, classes=2)
    trainer = hl.Trainer(toy.mlp(6, 8, 1), metrics=["accuracy", "roc_auc", "f1"])
    trainer.fit(X, y, validation=(X[:40], y[:40]), epochs=2)
    found = trainer.evaluate(X[:40], y[:40])
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y[:40], trainer.predict(X[:40])))
    assert found["f1"] == sklearn_metrics.f1_score(y[:40], trainer.predict_label(X[:40]))


def test_a_loss_in_python_has_top_k_and_labels(toy: Any) -> None:
    def loss(prediction: Any, target: Any) -> Any:
        e = np.exp(prediction - prediction.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        rows = np.arange(len(target))
        gradient = p.copy()
        gradient[rows, target] -= 1
        return -np.log(p[rows, target]), gradient

    X, y = toy.classes(100)
    found = []
    for choice in (loss, "cross_entropy"):
        trainer = hl.Trainer(toy.mlp(6, 8, 3), choice, metrics=["accuracy", "top2_accuracy", "f1_macro"])
        run = trainer.fit(X, y, validation=(X[:50], y[:50]), epochs=2)
        found.append({name: values for name, values in run.history.items() if "loss" not in name})
    assert found[0] == found[1]  # counts of rows


def test_a_score_that_fails_in_an_epoch_is_nan_and_told(toy: Any) -> None:
    """Logarithms of the targets are fine, those of this model's negative predictions are not."""
    X, _ = toy.classes(60)
    model = hl.nn.Linear(6, 1)
    model.load_state_dict({"weight": np.zeros((1, 6), np.float32), "bias": np.array([-5.0], np.float32)})
    trainer = hl.Trainer(model, "mse", optimizer=hl.optim.SGD(1e-6), metrics="neg_mean_squared_log_error")
    y = np.abs(X[:, 0])
    with pytest.warns(
        hl.HotloopWarning, match="'neg_mean_squared_log_error' cannot score these data.*NaN in this"
    ):
        run = trainer.fit(X, y, validation=(X, y), epochs=2)
    assert all(math.isnan(v) for v in run.history["val_neg_mean_squared_log_error"])
    with pytest.raises(ValueError, match=r"cannot score these data: .*; leave it out"):
        trainer.evaluate(X, y)


def test_names_are_stored_and_part_of_a_checkpoint(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(100)
    trainer = trainer_of(toy)
    whole = trainer.fit(X, y, validation=0.3, epochs=4)
    trainer.save(tmp_path / "model.safetensors")
    again = hl.load(tmp_path / "model.safetensors")
    assert again.metrics == METRICS
    assert again.evaluate(X, y) == trainer.evaluate(X, y)

    class Stop(hl.Callback):
        def on_epoch_end(self, state: Any) -> object:
            return state.epoch == 2

    trainer_of(toy, callbacks=[Stop()]).fit(
        X, y, validation=0.3, epochs=4, checkpoint=hl.Checkpoint(tmp_path)
    )
    rest = trainer_of(toy).fit(X, y, validation=0.3, epochs=4, resume=tmp_path)
    assert rest.history == whole.history
    with pytest.raises(hl.CheckpointError, match="metrics"):
        trainer_of(toy, metrics="accuracy").fit(X, y, validation=0.3, epochs=4, resume=tmp_path)


def test_the_cost_does_not_ask_for_scores(toy: Any) -> None:
    X, y = toy.classes(100)
    assert "top_k_accuracy" in trainer_of(toy).plan(X, y).steps


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_is_scikit_learns(toy: Any, k: int) -> None:
    X, y = toy.classes(500, classes=5)
    trainer = hl.Trainer(toy.mlp(6, 5), metrics=f"top{k}_accuracy")
    trainer.fit(X, y, epochs=1)
    outputs = trainer.predict(X)
    ordered = np.sort(outputs, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()  # no ties, about which the two differ
    expected = sklearn_metrics.top_k_accuracy_score(y, outputs, k=k, labels=np.arange(5))
    assert trainer.evaluate(X, y) == {"loss": pytest.approx(trainer.evaluate(X, y)["loss"]),
                                      f"top{k}_accuracy": expected}  # fmt: skip
