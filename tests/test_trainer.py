# SPDX-License-Identifier: Apache-2.0
"""The trainer: trajectories against formulas, metrics against NumPy, the same bits for any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core


@pytest.mark.parametrize(("shuffle", "weighted"), [(False, False), (True, False), (True, True)])
def test_sgd_trajectory_is_the_formula(shuffle: bool, weighted: bool) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(50, 4)).astype(np.float32)
    y = rng.normal(size=(50, 2)).astype(np.float32)
    weight = rng.uniform(0, 2, 50).astype(np.float32) if weighted else None
    model = hl.nn.Linear(4, 2)
    state = model.initialize(7).state_dict()
    trainer = hl.Trainer(model, "mse", optimizer=hl.optim.SGD(0.05), schedule=hl.schedules.Linear(), seed=3)
    run = trainer.fit(X, y, epochs=3, batch_size=16, shuffle=shuffle, sample_weight=weight)

    w, b = state["weight"].astype(np.float64), state["bias"].astype(np.float64)
    losses, step = [], 0
    for epoch in range(3):
        order = _core.permutation(50, seed=3, run=0, epoch=epoch) if shuffle else np.arange(50)
        total = weight_sum = 0.0
        for first in range(0, 50, 16):
            rows = order[first : first + 16]
            s = np.ones(len(rows)) if weight is None else weight[rows].astype(np.float64)
            error = X[rows] @ w.T + b - y[rows]
            total, weight_sum = total + np.sum(s * (error**2).mean(axis=1)), weight_sum + s.sum()
            gradient = (s / s.sum())[:, None] * error  # 2 / columns is 1
            lr = 0.05 * (1 - step / 12)
            w, b, step = w - lr * gradient.T @ X[rows], b - lr * gradient.sum(axis=0), step + 1
        losses.append(total / weight_sum)
    np.testing.assert_allclose(model.weight.data, w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.bias.data, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(run.history["lr"], [0.05 * (1 - s / 12) for s in (3, 7, 11)])


def test_history_has_the_documented_keys(toy: Any) -> None:
    X, y = toy.classes()
    run = hl.Trainer(toy.mlp(6, 16, 3), optimizer=hl.optim.AdamW(0.01)).fit(X, y, validation=0.2, epochs=4)
    assert set(run.history) == {"loss", "accuracy", "val_loss", "val_accuracy", "lr"}
    assert {len(values) for values in run.history.values()} == {4}
    assert run.history["loss"][-1] < run.history["loss"][0]
    assert run.stop_reason == "epochs"
    assert run.epochs == 4
    assert run.seconds > 0
    assert run.best_epoch == 1 + int(np.argmin(run.history["val_loss"]))
    assert f"best epoch {run.best_epoch} with val_loss" in repr(run)
    assert hl.History.from_dict(run.to_dict()) == run


def test_metrics_are_what_numpy_says(toy: Any) -> None:
    X, y = toy.classes(301)
    trainer = hl.Trainer(toy.mlp(6, 16, 3))
    trainer.fit(X, y, epochs=2)
    z = trainer.predict(X).astype(np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    weight = np.linspace(0, 1, 301)
    row_loss = -np.log(p[np.arange(301), y])
    found = trainer.evaluate(X, y)
    assert found["loss"] == pytest.approx(row_loss.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((z.argmax(1) == y).mean())
    assert trainer.evaluate(X, y, sample_weight=weight)["loss"] == pytest.approx(
        np.average(row_loss, weights=weight), rel=1e-5
    )
    np.testing.assert_allclose(trainer.predict_proba(X), p, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(trainer.predict_label(X), z.argmax(1))


def test_regression_metrics_and_column_targets() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(200, 3))
    y = X @ [1.0, -2.0, 0.5] + 3.0
    trainer = hl.Trainer(hl.nn.Linear(3, 1), optimizer=hl.optim.AdamW(0.1, weight_decay=0.0))
    run = trainer.fit(X, y, validation=(X[:50], y[:50]), epochs=30)
    assert set(run.history) == {"loss", "mse", "mae", "r2", "val_loss", "val_mse", "val_mae", "val_r2", "lr"}
    found = trainer.evaluate(X, y)
    p = trainer.predict(X)[:, 0].astype(np.float64)
    assert trainer.predict(X).shape == (200, 1)
    assert found["r2"] == pytest.approx(1 - np.sum((p - y) ** 2) / np.sum((y - y.mean()) ** 2), abs=1e-6)
    assert found["r2"] > 0.99
    assert found["mae"] == pytest.approx(np.abs(p - y.astype(np.float32)).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="predicts no classes; use predict"):
        trainer.predict_proba(X)


def test_binary_with_one_column(toy: Any) -> None:
    X, y = toy.classes(300, 6, 2)
    trainer = hl.Trainer(toy.mlp(6, 16, 1), optimizer=hl.optim.AdamW(0.02))
    run = trainer.fit(X, y, epochs=20)
    assert run.history["accuracy"][-1] > 0.9
    z, proba = trainer.predict(X)[:, 0].astype(np.float64), trainer.predict_proba(X)
    assert proba.shape == (300, 2)
    np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-z)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(trainer.predict_label(X), (z > 0).astype(int))
    many = hl.Trainer(toy.mlp(6, 3), "bce_with_logits")
    many.fit(X, np.eye(3)[y], epochs=1)
    assert many.predict_proba(X).shape == many.predict_label(X).shape == (300, 3)


def test_extreme_logits_give_finite_probabilities() -> None:
    model = hl.nn.Linear(1, 2, bias=False)
    model.load_state_dict({"weight": np.array([[1.0], [-1.0]], np.float32)})
    trainer = hl.Trainer(model, "cross_entropy")
    np.testing.assert_array_equal(trainer.predict_proba([[1000.0], [-1000.0]]), [[1, 0], [0, 1]])
    binary = hl.nn.Linear(1, 1, bias=False)
    binary.load_state_dict({"weight": np.ones((1, 1), np.float32)})
    np.testing.assert_array_equal(
        hl.Trainer(binary, "bce_with_logits").predict_proba([[1000.0], [-1000.0]]), [[0, 1], [1, 0]]
    )


def test_callable_loss_trains_as_the_built_in_one(toy: Any) -> None:
    X, y = toy.classes(70)
    weight = np.linspace(0.5, 1, 70)

    def cross_entropy(z: Any, target: Any) -> Any:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        rows = np.arange(len(z))
        return -np.log(p[rows, target]), p - np.eye(z.shape[1], dtype=z.dtype)[target]

    runs = []
    for loss in ("cross_entropy", cross_entropy):
        trainer = hl.Trainer(toy.mlp(6, 8, 3, dropout=0.2), loss, optimizer=hl.optim.SGD(0.1), seed=5)
        run = trainer.fit(X, y, validation=(X, y, weight), epochs=3, batch_size=16, sample_weight=weight)
        runs.append((run, trainer))
    (a, ours), (b, theirs) = runs
    assert set(a.history) == set(b.history)
    for name, values in a.history.items():
        np.testing.assert_allclose(b.history[name], values, rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(theirs.predict(X), ours.predict(X), rtol=1e-3, atol=1e-4)
    assert theirs.evaluate(X, y)["accuracy"] == pytest.approx(ours.evaluate(X, y)["accuracy"], abs=0.03)


@pytest.mark.parametrize("threads", [1, 2, 3, 7, None])
def test_the_same_bits_for_any_number_of_threads(toy: Any, digest: Any, threads: int | None) -> None:
    # Wide enough that products, element-wise kernels, column sums and the update have several chunks each.
    X, y = toy.classes(500, 24, 5)
    digests = set()
    for count in (1, threads):
        model = hl.nn.Sequential(
            hl.nn.Linear(24, 400), hl.nn.BatchNorm1d(400), hl.nn.GELU(), hl.nn.Dropout(0.2), hl.nn.Linear(400, 200),
            hl.nn.LayerNorm(200), hl.nn.Tanh(), hl.nn.Linear(200, 5),
        )  # fmt: skip
        trainer = hl.Trainer(model, threads=count, clip_norm=1.0)
        run = trainer.fit(X, y, validation=0.2, epochs=3, batch_size=64)
        digests.add((digest(trainer), tuple(run.history["loss"]), tuple(run.history["val_loss"])))
    assert len(digests) == 1


def test_runs_are_their_own_and_seeds_matter(toy: Any, digest: Any) -> None:
    X, y = toy.classes()
    first, second, other = (hl.Trainer(toy.mlp(6, 8, 3, dropout=0.1), seed=seed) for seed in (0, 0, 1))
    for trainer in (first, second, other):
        trainer.fit(X, y, epochs=1)
    assert digest(first) == digest(second) != digest(other)
    first.fit(X, y, epochs=1)
    assert int(first.optimizer_state()["0.weight.step"]) == 10  # fresh moments and counters
    again = hl.Trainer(toy.mlp(6, 8, 3, dropout=0.1))
    start = again.model.initialize(0).state_dict()
    digests = []
    for _ in range(2):  # from the same weights, but with shuffles and dropout of its own
        again.model.load_state_dict(start)
        again.fit(X, y, epochs=1)
        digests.append(digest(again))
    assert digests[0] == digest(second) != digests[1]
    second.fit(X, y, epochs=1, reset_optimizer=False)
    assert int(second.optimizer_state()["0.weight.step"]) == 20


def test_a_row_predicts_the_same_bits_in_any_batch(toy: Any) -> None:
    X, _ = toy.classes(600)
    trainer = hl.Trainer(toy.mlp(6, 32, 3), "cross_entropy")
    whole = trainer.predict(X)
    assert whole.dtype == np.float32
    for rows in (slice(0, 1), slice(3, 20), slice(100, 599)):
        np.testing.assert_array_equal(trainer.predict(X[rows]), whole[rows])
    assert trainer.predict(X[:0]).shape == (0, 3)


def test_named_inputs_of_mixed_kinds(toy: Any, digest: Any) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = {
        "num": rng.integers(0, 9, (200, 2)),
        "cat": rng.integers(0, 4, 200),
    }  # integers that are features, and ids
    y = X["cat"] % 2
    trainer = hl.Trainer(toy.two_inputs(), optimizer=hl.optim.AdamW(0.03))
    run = trainer.fit(X, y, validation=0.2, epochs=25)
    assert run.history["accuracy"][-1] > 0.95
    same = {"num": X["num"].astype(np.uint8), "cat": X["cat"].astype(np.int32)}
    np.testing.assert_array_equal(trainer.predict(same), trainer.predict(X))
    before = digest(trainer)
    with pytest.raises(hl.LabelError, match=r"X\['cat'\]\[199\] = 4"):
        trainer.fit({**X, "cat": np.append(X["cat"][:-1], 4)}, y)
    assert digest(trainer) == before
