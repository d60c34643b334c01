# SPDX-License-Identifier: Apache-2.0
"""Runs that go wrong, each in its own way, and the data and models they are made of: what the tests of diagnosis
have to find."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl

nn, optim = hl.nn, hl.optim


def mlp(
    n_in: int, widths: tuple[int, ...], n_out: int, activation: Any = nn.ReLU, dropout: float = 0.0
) -> Any:
    layers: list[Any] = []
    for width in widths:
        layers += [nn.Linear(n_in, width), activation()]
        layers += [nn.Dropout(dropout)] if dropout else []
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


def bundled(name: str) -> tuple[Any, Any]:
    """A data set of scikit-learn, standardised (digits: 0 to 1); a target of numbers too."""
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        return (X / 16).astype(np.float32), y
    X = ((X - X.mean(0)) / X.std(0)).astype(np.float32)
    return (X, y) if y.dtype.kind == "i" else (X, ((y - y.mean()) / y.std()).astype(np.float32))


def smooth(rows: int, seed: int, noise: float = 0.2) -> tuple[Any, Any]:
    """Eight inputs, a smooth target with interactions, as house prices have; about unit variance."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 8)).astype(np.float32)
    y = np.sin(1.5 * X[:, 0]) + 0.5 * X[:, 1] * X[:, 2] + 0.5 * X[:, 3] + noise * rng.normal(size=rows)
    return X, y.astype(np.float32)


def noisy_labels(seed: int, rows: int = 400) -> tuple[Any, Any]:
    """Two classes by the sign of one of 20 inputs, a quarter of the labels wrong."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 20)).astype(np.float32)
    return X, np.where(rng.random(rows) < 0.25, X[:, 0] <= 0, X[:, 0] > 0).astype(np.int64)


def xor(seed: int) -> tuple[Any, Any]:
    X = np.random.default_rng(seed).uniform(-1, 1, size=(500, 2)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def rare_class(seed: int, rows: int = 1000) -> tuple[Any, Any]:
    """Two classes, of which the second has a thirtieth of the rows and overlaps the first."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 10)).astype(np.float32)
    score = X[:, 0] + 1.5 * rng.normal(size=rows)
    return X, (score > np.sort(score)[-rows // 30]).astype(np.int64)


def fit(model: Any, X: Any, y: Any, optimizer: Any, seed: int, *, epochs: int = 20, validation: Any = 0.2,
        batch_size: int = 32, **options: Any) -> hl.History:  # fmt: skip
    """The history of a run; a divergence is no warning here."""
    trainer = hl.Trainer(model, optimizer=optimizer, seed=seed, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.HotloopWarning)
        return trainer.fit(X, y, validation=validation, epochs=epochs, batch_size=batch_size)


# --- illnesses ------------------------------------------------------------------------------------


def overfitting(seed: int) -> hl.History:
    X, y = noisy_labels(seed)
    return fit(mlp(20, (128,), 2), X, y, optim.AdamW(3e-3), seed, epochs=60, validation=0.3)


def overfitting_regression(seed: int) -> hl.History:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(400, 20)).astype(np.float32)
    return fit(mlp(20, (128,), 1), X, X[:, 0] + rng.normal(size=400), optim.AdamW(3e-3), seed, epochs=60)


def overfitting_kept(seed: int) -> hl.History:
    X, y = noisy_labels(seed)
    return fit(
        mlp(20, (128,), 2), X, y, optim.AdamW(3e-3), seed, epochs=40, validation=0.3, restore_best=False
    )


def underfitting(seed: int) -> hl.History:
    return fit(nn.Linear(2, 2), *xor(seed), optim.AdamW(0.01), seed, epochs=40)


def underfitting_regression(seed: int) -> hl.History:
    X = np.random.default_rng(seed).uniform(-6, 6, size=(500, 1)).astype(np.float32)
    return fit(nn.Linear(1, 1), X, np.cos(X[:, 0]), optim.AdamW(0.01), seed, epochs=40)


def underfitting_one_unit(seed: int) -> hl.History:
    X, y = bundled("digits")
    return fit(mlp(64, (1,), 10, nn.Tanh), X, y, optim.AdamW(3e-3), seed, epochs=40)


def stopped_by_patience(seed: int) -> hl.History:
    """A validation set that jumps, and a patience of one epoch."""
    X, y = smooth(600, 7)
    return fit(
        mlp(8, (64,), 1, dropout=0.2), X, y, optim.AdamW(2e-3), seed, epochs=200,
        validation=(X[:100], y[:100] + np.float32(0.3)), early_stopping=hl.EarlyStopping(1),
        batch_size=16,
    )  # fmt: skip


def stopped_by_min_delta(seed: int) -> hl.History:
    X, y = bundled("digits")
    stopping = hl.EarlyStopping(3, min_delta=0.5)
    return fit(mlp(64, (64,), 10), X, y, optim.AdamW(1e-3), seed, epochs=100, early_stopping=stopping)


def still_improving(seed: int) -> hl.History:
    X, y = bundled("digits")
    return fit(mlp(64, (64,), 10), X, y, optim.AdamW(1e-3), seed, epochs=5)


def diverged(seed: int) -> hl.History:
    X, y = smooth(600, seed)
    return fit(mlp(8, (64,), 1), X, 100 * y, optim.SGD(3.0), seed)


def rate_too_high_sgd(seed: int) -> hl.History:
    X, y = bundled("digits")
    return fit(mlp(64, (64,), 10), X, y, optim.SGD(3.0), seed)


def rate_too_high_adam(seed: int) -> hl.History:
    X, y = bundled("wine")
    return fit(mlp(13, (64,), 3), X, y, optim.AdamW(1.0), seed, epochs=40)


def rate_too_low(seed: int) -> hl.History:
    X, y = bundled("digits")
    return fit(mlp(64, (64,), 10), X, y, optim.AdamW(1e-6), seed)


def rate_too_low_sgd(seed: int) -> hl.History:
    return fit(mlp(8, (64,), 1), *smooth(600, seed), optim.SGD(1e-5), seed)


def dead_relus(seed: int) -> hl.History:
    X, y = bundled("digits")
    model = mlp(64, (32,), 10).initialize(seed)
    dict(model.named_parameters())["0.bias"].data[:24] = -50
    return fit(model, X, y, optim.AdamW(1e-3), seed)


def vanishing(seed: int) -> hl.History:
    X, y = bundled("digits")
    return fit(mlp(64, (32,) * 10, 10, nn.Sigmoid), X, y, optim.SGD(0.05), seed, epochs=8)


def exploding(seed: int) -> hl.History:
    X, y = bundled("digits")
    model = mlp(64, (32,) * 10, 10).initialize(seed)
    for parameter in model.parameters():
        parameter.data[...] *= 8
    return fit(model, X, y, optim.AdamW(1e-4), seed, epochs=8)


def class_ignored(seed: int) -> hl.History:
    return fit(mlp(10, (32,), 2), *rare_class(seed), optim.AdamW(1e-3), seed)


def class_ignored_binary(seed: int) -> hl.History:
    return fit(mlp(10, (32,), 1), *rare_class(seed), optim.AdamW(1e-3), seed)


def inputs_not_scaled(seed: int) -> hl.History:
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_wine(return_X_y=True)
    return fit(mlp(13, (32,), 3), X, y, optim.AdamW(1e-3), seed, epochs=40)


def constant_columns(seed: int) -> hl.History:
    X, y = bundled("wine")
    X = np.concatenate([X, np.ones((len(X), 1), np.float32)], axis=1)
    return fit(mlp(14, (32,), 3), X, y, optim.AdamW(5e-3), seed, epochs=40)


def validation_too_small(seed: int) -> hl.History:
    X, y = noisy_labels(seed)
    return fit(nn.Linear(20, 2), X[10:], y[10:], optim.AdamW(3e-3), seed, validation=(X[:10], y[:10]))


def validation_too_small_regression(seed: int) -> hl.History:
    X, y = smooth(400, seed)
    held_out = (X[:10], y[:10])
    return fit(mlp(8, (32,), 1), X[10:], y[10:], optim.AdamW(5e-3), seed, epochs=40, validation=held_out)


#: (how to fall ill, the rule that has to say so first)
ILLNESSES: list[tuple[Callable[[int], hl.History], str]] = [
    (overfitting, "overfitting"),
    (overfitting_regression, "overfitting"),
    (overfitting_kept, "overfitting"),
    (underfitting, "underfitting"),
    (underfitting_regression, "underfitting"),
    (underfitting_one_unit, "underfitting"),
    (stopped_by_patience, "stopped_too_early"),
    (stopped_by_min_delta, "stopped_too_early"),
    (still_improving, "still_improving"),
    (diverged, "diverged"),
    (rate_too_high_sgd, "learning_rate_too_high"),
    (rate_too_high_adam, "learning_rate_too_high"),
    (rate_too_low, "learning_rate_too_low"),
    (rate_too_low_sgd, "learning_rate_too_low"),
    (dead_relus, "dead_relus"),
    (vanishing, "vanishing_gradients"),
    (exploding, "exploding_gradients"),
    (class_ignored, "class_ignored"),
    (class_ignored_binary, "class_ignored"),
    (inputs_not_scaled, "inputs_not_scaled"),
    (constant_columns, "constant_columns"),
    (validation_too_small, "validation_too_small"),
    (validation_too_small_regression, "validation_too_small"),
]
