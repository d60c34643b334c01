# SPDX-License-Identifier: Apache-2.0
"""The one-batch check: healthy models pass, impossible ones are named for what they are, and nothing changes."""

from __future__ import annotations

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
    check = trainer.overfit_batch(fit["X"], fit["y"], batch_size=fit["batch_size"], steps=20)
    assert len(check.losses) == 20
    assert digest(trainer) == before == digest(alone)
    assert trainer.history is history
    assert trainer.fit(**fit).history == alone.fit(**fit).history
    assert digest(trainer) == digest(alone)


def healthy(toy: Any) -> dict[str, Any]:
    X, y = toy.classes()
    numbers = np.sin(X[:, :2]).astype(np.float32)

    def own_loss(prediction: Any, target: Any) -> Any:
        error = prediction.astype(np.float64) - target
        return (error**2).mean(axis=1), 2 * error / error.shape[1]

    adam = hl.optim.AdamW(0.02)
    return {
        "classes": (hl.Trainer(toy.mlp(6, 64, 3), optimizer=adam), X, y),
        "dropout": (hl.Trainer(toy.mlp(6, 64, 3, dropout=0.9), optimizer=adam), X, y),
        "batch_norm": (hl.Trainer(toy.batch_norm(), optimizer=hl.optim.AdamW(0.1)), X, y),
        "numbers": (hl.Trainer(toy.mlp(6, 64, 2), "mse", optimizer=adam), X, numbers),
        "own loss": (hl.Trainer(toy.mlp(6, 64, 2), own_loss, optimizer=adam), X, numbers),
        "labels of two classes": (hl.Trainer(toy.mlp(6, 64, 1), optimizer=adam), X, y > 0),
        "probabilities": (hl.Trainer(toy.mlp(6, 64, 3), "cross_entropy", optimizer=adam), X, np.eye(3)[y]),
    }


@pytest.mark.parametrize(
    "name",
    [
        "classes", "dropout", "batch_norm", "numbers", "own loss", "labels of two classes", "probabilities",
    ],
)  # fmt: skip
def test_healthy_models_pass(toy: Any, name: str) -> None:
    trainer, X, y = healthy(toy)[name]
    check = trainer.overfit_batch(X, np.asarray(y).astype(np.int64) if name.startswith("labels") else y)
    assert check.passed, check
    assert check.verdict == "can memorise one batch"
    assert check.last_loss < 0.5 * check.first_loss
    assert check.rows == 32
    assert "can memorise one batch; loss" in repr(check)


def test_identical_inputs_with_shuffled_labels_are_found(toy: Any) -> None:
    X = np.ones((300, 6), np.float32)
    y = np.random.Generator(np.random.PCG64(0)).integers(0, 3, 300)
    check = hl.Trainer(toy.mlp(6, 64, 3), optimizer=hl.optim.AdamW(0.02)).overfit_batch(X, y)
    assert not check.passed
    assert check.value < 0.7
    found = [int(word) for word in check.verdict.split() if word.isdigit()]
    assert "the same inputs and different targets" in check.verdict
    assert y[found[0]] != y[found[1]]


def test_a_rate_of_zero_is_named(toy: Any) -> None:
    X, y = toy.classes()
    check = hl.Trainer(toy.mlp(6, 64, 3), optimizer=hl.optim.SGD(0.0)).overfit_batch(X, y)
    assert check.verdict == "cannot: the optimizer's learning rate is 0; give one > 0"
    assert check.first_loss == check.last_loss
    assert len(set(check.losses)) == 1


@pytest.mark.parametrize(
    ("lr", "text"),
    [(1e-9, "the loss does not move"), (1e-2, "the loss still falls"), (1e30, "diverged in step")],
)
def test_rates_that_do_not_fit_are_told_apart(toy: Any, lr: float, text: str) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 64, 3), "mse", optimizer=hl.optim.SGD(lr))
    check = trainer.overfit_batch(X, np.eye(3, dtype=np.float32)[y])
    assert not check.passed
    assert check.verdict.startswith("cannot: ")
    assert text in check.verdict
    assert np.isfinite(trainer.predict(X)).all()


def test_a_model_that_is_too_small_is_told(toy: Any) -> None:
    """Exclusive or is beyond a linear model."""
    X = np.array([[a, b] for a in (-1, 1) for b in (-1, 1)], np.float32)
    y = (X[:, 0] != X[:, 1]).astype(np.int64)
    linear = hl.Trainer(hl.nn.Linear(2, 2), optimizer=hl.optim.AdamW(0.05)).overfit_batch(X, y)
    assert not linear.passed
    assert "the model may be too small" in linear.verdict
    wide = hl.Trainer(toy.mlp(2, 32, 2), optimizer=hl.optim.AdamW(0.05)).overfit_batch(X, y)
    assert wide.passed


@pytest.mark.parametrize(
    ("loss", "y"), [("cross_entropy", np.zeros(64, np.int64)), ("mse", np.ones((64, 3)))]
)
def test_a_batch_with_one_target_says_little(toy: Any, loss: str, y: Any) -> None:
    X, _ = toy.classes(64)
    check = hl.Trainer(toy.mlp(6, 64, 3), loss, optimizer=hl.optim.AdamW(0.02)).overfit_batch(X, y)
    assert check.passed
    assert "all its targets are the same" in check.verdict


def test_rows_without_weight_are_not_drawn(toy: Any) -> None:
    X, y = toy.classes()
    weight = np.zeros(300)
    weight[[3, 77, 200]] = 1
    trainer = hl.Trainer(toy.mlp(6, 64, 3), optimizer=hl.optim.AdamW(0.02))
    assert trainer.overfit_batch(X, y, sample_weight=weight).rows == 3


def test_an_odd_last_batch_does_not_matter_to_batch_norm(toy: Any) -> None:
    X, y = toy.classes(33)
    trainer = hl.Trainer(toy.batch_norm(), optimizer=hl.optim.AdamW(0.1))
    assert trainer.overfit_batch(X, y).rows == 32
    with pytest.raises(hl.ShapeError, match="BatchNorm needs at least 2"):
        trainer.overfit_batch(X, y, batch_size=1)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}, {"steps": 1.5}])
def test_bad_arguments(toy: Any, bad: dict[str, Any]) -> None:
    X, y = toy.classes()
    with pytest.raises((TypeError, ValueError), match=rf"\[overfit_batch\] {next(iter(bad))} must be"):
        hl.Trainer(toy.mlp(6, 3)).overfit_batch(X, y, **bad)
