# SPDX-License-Identifier: Apache-2.0
"""It learns real data: digits to 97 %, and the other bundled sets as well as scikit-learn's MLP does.

Same architecture, epochs, batch size, learning rate and data for both; each is the mean over the seeds below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl

datasets = pytest.importorskip("sklearn.datasets")
SEEDS = (0, 1, 2, 3, 4)


def standardise(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    mean, scale = train.mean(0), train.std(0)
    scale[scale == 0] = 1.0
    return [((a - mean) / scale).astype(np.float32) for a in (train, *others)]


def test_digits_reaches_97_percent() -> None:
    x, y = datasets.load_digits(return_X_y=True)
    scores = []
    for seed in SEEDS:
        data = hl.split(x, y, seed=seed)
        (x_train, y_train), (x_val, y_val) = data.train, data.validation
        x_test, y_test = data.test.open()
        x_train, x_val, x_test = standardise(x_train, x_val, x_test)
        model = hl.nn.Sequential(hl.nn.Linear(64, 128), hl.nn.ReLU(), hl.nn.Linear(128, 10))
        trainer = hl.Trainer(model, early_stopping=hl.EarlyStopping(15), seed=seed, progress=False, loss="cross_entropy")
        trainer.fit(x_train, y_train, validation=(x_val, y_val), epochs=200)
        scores.append(trainer.evaluate(x_test, y_test)["accuracy"])
    assert np.mean(scores) >= 0.97, scores


# (bundled set, hidden widths, epochs, margin): margin is what the mean over five seeds may fall short by,
# one test row's worth of the smallest set for classes, and 0.01 of R2 for diabetes.
SETS = [("iris", (32,), 100, 0.01), ("wine", (32,), 60, 0.01), ("breast_cancer", (32,), 60, 0.005),
        ("diabetes", (32,), 60, 0.01)]  # fmt: skip


@pytest.mark.parametrize(("name", "hidden", "epochs", "margin"), SETS)
def test_matches_scikit_learn(name: str, hidden: tuple[int, ...], epochs: int, margin: float) -> None:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    regression = name == "diabetes"
    ours, theirs = [], []
    for seed in SEEDS:
        data = hl.split(x, y, sizes=(0.7, 0.0, 0.3), seed=seed)
        (x_train, y_train), (x_test, y_test) = data.train, data.test.open()
        x_train, x_test = standardise(x_train, x_test)
        if regression:
            centre, scale = y_train.mean(), y_train.std()
            y_train, y_test = [((v - centre) / scale).astype(np.float32) for v in (y_train, y_test)]
        ours.append(hotloop_score(x_train, y_train, x_test, y_test, hidden, epochs, seed))
        theirs.append(sklearn_score(x_train, y_train, x_test, y_test, hidden, epochs, seed))
    assert np.mean(ours) >= np.mean(theirs) - margin, (np.mean(ours), np.mean(theirs))


def hotloop_score(
    x: np.ndarray, y: np.ndarray, xt: np.ndarray, yt: np.ndarray, hidden: tuple[int, ...], epochs: int, seed: int
) -> float:
    regression = y.dtype.kind == "f"
    widths = (x.shape[1], *hidden, 1 if regression else int(y.max()) + 1)
    layers: list[hl.nn.Module] = []
    for a, b in zip(widths, widths[1:]):
        layers += [hl.nn.Linear(a, b), hl.nn.ReLU()]
    trainer = hl.Trainer(hl.nn.Sequential(*layers[:-1]), loss="auto", optimizer=hl.optim.Adam(1e-3), seed=seed,
                         progress=False)  # fmt: skip
    trainer.fit(x, y, epochs=epochs, batch_size=32)
    return trainer.evaluate(xt, yt)["r2" if regression else "accuracy"]


def sklearn_score(
    x: np.ndarray, y: np.ndarray, xt: np.ndarray, yt: np.ndarray, hidden: tuple[int, ...], epochs: int, seed: int
) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind: Any = MLPRegressor if y.dtype.kind == "f" else MLPClassifier
    peer = kind(hidden, batch_size=32, max_iter=epochs, alpha=0.0, n_iter_no_change=epochs, random_state=seed)
    with pytest.warns(ConvergenceWarning):
        peer.fit(x, y)
    return float(peer.score(xt, yt))
