# SPDX-License-Identifier: Apache-2.0
"""The moving average of the weights: its numbers, who sees it, and that training itself is not touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.storage.files import read_safetensors
from tests.runs import stopping

DECAY = 0.75


def regression() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    return X, (X @ rng.normal(size=4)).astype(np.float32)


def linear(ema: float | None = DECAY, **options: Any) -> Any:
    optimizer = options.pop("optimizer", hl.optim.SGD(0.05))
    return hl.Trainer(hl.nn.Linear(4, 1), "mse", optimizer=optimizer, ema=ema, progress=False, **options)


def weights(trainer: Any) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in trainer.model.state_dict().items()}


def averages(epochs: int, accumulate: int = 1, rows: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """(weights, their average) in NumPy: float64 gradient descent on the rows in order."""
    X, y = (a.astype(np.float64) for a in regression())
    X = np.hstack([X, np.ones((60, 1))])
    model = hl.nn.Linear(4, 1)
    model.initialize(0)
    w = np.concatenate([v.astype(np.float64).ravel() for v in model.state_dict().values()])
    average = None
    for _ in range(epochs):
        for first in range(0, 60, rows * accumulate):
            at = slice(first, first + rows * accumulate)
            w = w - 0.05 * 2 * X[at].T @ (X[at] @ w - y[at]) / len(X[at])
            average = w if average is None else DECAY * average + (1 - DECAY) * w
    assert average is not None
    return w, average


def flat(state: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in state.values()])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_model_ends_on_the_average_of_a_numpy_loop(accumulate: int) -> None:
    X, y = regression()
    trainer = linear(accumulate=accumulate)
    trainer.fit(X, y, epochs=3, batch_size=10, shuffle=False)
    raw, average = averages(3, accumulate)
    np.testing.assert_allclose(flat(weights(trainer)), average, rtol=2e-5, atol=1e-6)
    assert not np.allclose(average, raw, rtol=1e-3)


def test_the_first_update_is_copied() -> None:
    X, y = regression()
    ends = []
    for ema in (None, 0.999):
        trainer = linear(ema)
        trainer.fit(X, y, epochs=1, batch_size=60)
        ends.append(flat(weights(trainer)))
    np.testing.assert_array_equal(*ends)


def test_what_has_no_weight_is_no_update() -> None:
    """Rows without weight at the start: the average begins at the first true update."""
    X, y = regression()
    weight = np.repeat([0.0, 1.0], 30)
    ends = []
    for data in ((X, y, weight), (X[30:], y[30:], np.ones(30))):
        trainer = linear()
        trainer.fit(data[0], data[1], sample_weight=data[2], epochs=1, batch_size=10, shuffle=False)
        ends.append(flat(weights(trainer)))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("make", ["mlp", "batch_norm"])
def test_training_is_not_touched(toy: Any, make: str) -> None:
    """The same losses, moments and statistics of the layers to the bit; other validation losses."""
    X, y = toy.classes(120)
    runs, states = [], []
    for ema in (None, 0.9):
        model = toy.mlp(6, 8, 3, dropout=0.2) if make == "mlp" else toy.batch_norm()
        trainer = hl.Trainer(model, ema=ema, restore_best=False)
        runs.append(trainer.fit(X, y, epochs=4, validation=0.25).history)
        state = {**trainer.optimizer_state(), **trainer.model.state_dict()}
        states.append({n: v for n, v in state.items() if "running" in n or "exp_avg" in n})
    assert runs[0]["loss"] == runs[1]["loss"]
    assert runs[0]["val_loss"][1:] != runs[1]["val_loss"][1:]
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value)


def test_validation_and_callbacks_see_the_average(toy: Any) -> None:
    X, y = toy.classes(120)
    seen: list[float] = []

    def look(state: Any) -> None:
        loss = trainer.evaluate(X[:40], y[:40])["loss"]
        seen.append(loss - state.metrics["val_loss"])

    trainer = hl.Trainer(toy.mlp(6, 8, 3), ema=0.9, callbacks=[look], restore_best=False)
    run = trainer.fit(X[40:], y[40:], epochs=3, validation=(X[:40], y[:40]))
    assert seen == [0.0, 0.0, 0.0]
    assert trainer.evaluate(X[:40], y[:40])["loss"] == run.history["val_loss"][-1]


def test_the_best_epoch_is_the_best_average(toy: Any) -> None:
    trainer, fit = toy.turning(ema=0.9)
    run = trainer.fit(**fit)
    losses = run.history["val_loss"]
    assert run.best_epoch == int(np.argmin(losses)) + 1 < run.epochs
    assert trainer.evaluate(*fit["validation"])["loss"] == min(losses)


def test_every_end_leaves_the_average() -> None:
    """An interruption in mid-epoch, an error of a callback, and without validation the last epoch."""
    X, y = regression()
    with stopping(8):
        trainer = linear()
        run = trainer.fit(X, y, epochs=3, batch_size=10, shuffle=False)
    assert (run.stop_reason, run.epochs) == ("interrupt", 1)

    def fail(state: Any) -> None:
        raise KeyError("mine")

    failing = linear(callbacks=[fail], restore_best=False)
    with pytest.raises(KeyError, match="mine"):
        failing.fit(X, y, epochs=3, batch_size=10, shuffle=False)
    np.testing.assert_allclose(flat(weights(failing)), averages(1)[1], rtol=2e-5, atol=1e-6)
    whole = linear()
    whole.fit(X[:20], y[:20], epochs=1, batch_size=10, shuffle=False)
    expected = linear()
    expected.fit(X, y, epochs=1, batch_size=10, shuffle=False)
    resumed = flat(weights(trainer))
    assert not np.array_equal(resumed, flat(weights(expected)))  # two more updates are in it
    assert np.isfinite(resumed).all()


def test_divergence_restores_the_last_average() -> None:
    X, y = regression()
    trainer = linear(optimizer=hl.optim.SGD(5.0))
    with pytest.warns(hl.HotloopWarning, match="restored"):
        run = trainer.fit(X, y, epochs=50, batch_size=10)
    assert run.stop_reason == "divergence"
    assert np.isfinite(flat(weights(trainer))).all()


def test_each_run_begins_its_own_average() -> None:
    """The second run starts from the averaged weights: one update of it is a copy again."""
    X, y = regression()
    ends = []
    for ema in (DECAY, None):
        first = linear()
        first.fit(X, y, epochs=2, batch_size=10)
        first.ema = ema
        first.fit(X, y, epochs=1, batch_size=60)
        ends.append(flat(weights(first)))
    np.testing.assert_array_equal(*ends)


def test_a_checkpoint_holds_both(tmp_path: Path) -> None:
    """Its own tensors are the average, with which it predicts; the weights in training stand beside it."""
    X, y = regression()
    with stopping(8):
        linear().fit(X, y, epochs=3, batch_size=10, shuffle=False, checkpoint=hl.Checkpoint(tmp_path, 2))
    with stopping(8):
        raw = linear(None)
        raw.fit(X, y, epochs=3, batch_size=10, shuffle=False)
    (*_, newest) = sorted(tmp_path.iterdir())
    tensors, _ = read_safetensors(newest)
    for name, value in weights(raw).items():
        np.testing.assert_array_equal(tensors[f"run/buffers/raw/{name}"], value)
    assert tensors["run/buffers/averaged updates"] == 8
    assert not np.array_equal(tensors["weight"], weights(raw)["weight"])
    loaded = hl.load(newest)
    np.testing.assert_allclose(
        loaded.predict(X)[:, 0], X @ tensors["weight"][0] + tensors["bias"], rtol=1e-5, atol=1e-6
    )


def test_a_checkpoint_that_lacks_a_buffer_is_refused(tmp_path: Path) -> None:
    from hotloop.storage import checkpoint_file

    X, y = regression()
    fit = {"epochs": 3, "batch_size": 10, "shuffle": False}
    with stopping(3):
        linear(accumulate=2).fit(X, y, checkpoint=hl.Checkpoint(tmp_path, 1), **fit)
    stored = checkpoint_file.read(tmp_path)
    assert stored.record.batch == 3
    kept = dict(stored.record.buffers)
    assert {name.split("/")[0] for name in kept} == {"accumulated", "raw", "averaged updates"}
    for name in ("accumulated/weight", "raw/bias", "averaged updates"):
        broken = {key: value for key, value in kept.items() if key != name}
        buffers = _buffers_of(linear(accumulate=2), X, y)
        with pytest.raises(ValueError, match=f"'{name}' is missing"):
            buffers.check(broken, 3)
        buffers.check(broken if name == "accumulated/weight" else kept, 4)  # whole updates need no sums


def _buffers_of(trainer: Any, X: np.ndarray, y: np.ndarray) -> Any:
    from hotloop.fit.prepare import make_job

    return make_job(
        trainer,
        X,
        y,
        validation=None,
        weight=None,
        epochs=3,
        batch_size=10,
        shuffle=False,
        max_time=None,
        run=0,
    ).buffers


def test_the_memory_refuses_what_it_has_no_room_for() -> None:
    from hotloop import _core

    memory = _core.Memory(parameters=16, state=0, counters=1, moments=0, dtype="float32")
    for call in (memory.begin_ema, memory.exchange_ema):
        with pytest.raises(hl.HotloopError, match="no room for an average"):
            call()
    before = memory.parameters.ctypes.data
    memory.reserve(accumulated=False, ema=True)
    memory.parameters[:] = np.arange(16)
    memory.begin_ema()
    memory.parameters[:] = 1
    memory.exchange_ema()
    memory.reserve(accumulated=True, ema=True)  # what is there stays
    assert memory.parameters.ctypes.data == before
    np.testing.assert_array_equal(memory.parameters, np.arange(16))
    np.testing.assert_array_equal(memory.ema, np.ones(16))
    assert (memory.accumulated.size, memory.ema_counter.tolist()) == (16, [0])


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan")])
def test_a_decay_must_lie_between_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[Trainer\] ema"):
        linear(value)


def test_a_decay_is_a_number() -> None:
    with pytest.raises(TypeError, match=r"\[Trainer\] ema"):
        linear("0.9")  # type: ignore[arg-type]
