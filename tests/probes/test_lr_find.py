# SPDX-License-Identifier: Apache-2.0
"""The learning-rate finder: what it suggests, that training with it goes well, and that it disturbs nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests import runs


@pytest.mark.parametrize("name", ["dropout", "batch_norm", "callable", "two_inputs"])
def test_nothing_changes_bit_for_bit(name: str, digest: Any) -> None:
    """Neither the numbers nor anything that a later run could see: it ends on the bits of a run alone."""
    alone, fit = runs.make(name)
    trainer, _ = runs.make(name)
    alone.fit(**{**fit, "epochs": 1})
    trainer.fit(**{**fit, "epochs": 1})  # so that there are moments, counters, statistics and a history
    views = {key: value.data for key, value in trainer.model.named_parameters()}
    before, history = digest(trainer), trainer.history
    found = trainer.lr_find(fit["X"], fit["y"], batch_size=fit["batch_size"], steps=30)
    assert len(found.lrs) > 1
    assert digest(trainer) == before == digest(alone)
    assert trainer.history is history
    for key, value in trainer.model.named_parameters():
        assert value.data is views[key] or np.shares_memory(value.data, views[key])
    again, first = trainer.fit(**fit), alone.fit(**fit)
    assert again.history == first.history
    assert digest(trainer) == digest(alone)


def test_before_the_first_run_it_leaves_the_weights_that_fit_would_draw(toy: Any, digest: Any) -> None:
    X, y = toy.classes()
    alone, trainer = (hl.Trainer(toy.batch_norm(), seed=3) for _ in range(2))
    trainer.lr_find(X, y)
    assert trainer.history is None
    assert alone.fit(X, y, epochs=2).history == trainer.fit(X, y, epochs=2).history
    assert digest(alone) == digest(trainer)


def test_in_the_midst_of_a_run_it_does_not_disturb_that_either(digest: Any) -> None:
    alone, fit = runs.make("batch_norm")
    found: list[Any] = []

    def probe(state: Any) -> None:
        found.append(trainer.lr_find(fit["X"], fit["y"], batch_size=16, steps=20).losses[0])
        found.append(trainer.overfit_batch(fit["X"], fit["y"], steps=5).first_loss)

    trainer, _ = runs.make("batch_norm", callbacks=[probe])
    assert trainer.fit(**fit).history == alone.fit(**fit).history
    assert digest(trainer) == digest(alone)
    assert len(set(found[::2])) == runs.EPOCHS  # it saw the model of each epoch


def test_a_loaded_model_is_left_alone_too(tmp_path: Path, digest: Any) -> None:
    trainer, fit = runs.make("batch_norm")
    trainer.fit(**fit)
    trainer.save(tmp_path / "m.safetensors")
    loaded = hl.load(tmp_path / "m.safetensors")
    before = digest(loaded)
    first = loaded.lr_find(fit["X"], fit["y"], batch_size=16)
    np.testing.assert_array_equal(first.losses, trainer.lr_find(fit["X"], fit["y"], batch_size=16).losses)
    assert digest(loaded) == before == digest(trainer)


def test_the_suggestion_trains_digits_well() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    parts = hl.split(X.astype(np.float32) / 16, y)

    def accuracy(lr: float) -> float:
        model = hl.nn.Sequential(hl.nn.Linear(64, 128), hl.nn.ReLU(), hl.nn.Linear(128, 10))
        trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(lr))
        trainer.fit(*parts.train, epochs=20)
        return trainer.evaluate(*parts.validation)["accuracy"]

    model = hl.nn.Sequential(hl.nn.Linear(64, 128), hl.nn.ReLU(), hl.nn.Linear(128, 10))
    found = hl.Trainer(model).lr_find(*parts.train)
    assert found.suggestion is not None
    assert found.diverged
    at = accuracy(found.suggestion)
    assert at > 0.96
    assert at > accuracy(found.suggestion / 100) + 0.04  # a rate of any size would not do
    assert at > accuracy(found.suggestion * 100) + 0.5


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_inputs_of_another_scale_ask_for_the_rate_that_they_need(scale: float) -> None:
    """Without a bias, inputs times s make the curvature, and so the rate, s squared times as large."""
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(640, 5)).astype(np.float32)
    y = X @ np.array([1, -2, 0.5, 3, 0], np.float32)

    def suggestion(inputs: Any) -> Any:
        model = hl.nn.Sequential(hl.nn.Linear(5, 1, bias=False))
        model.load_state_dict({"0.weight": np.zeros((1, 5), np.float32)})
        return hl.Trainer(model, "mse", optimizer=hl.optim.SGD(1.0)).lr_find(inputs, y, start=1e-9).suggestion

    ratio = suggestion(X) / suggestion(scale * X)
    two_steps = (10 / 1e-9) ** (2 / 99)  # the batches at the decisive steps are others
    assert scale**2 / two_steps < ratio < scale**2 * two_steps


def test_losses_begin_level_and_the_rates_grow_by_one_ratio(toy: Any) -> None:
    """With rates too small to matter the curve is flat, though the losses of the batches differ."""
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 16, 3, dropout=0.3))
    found = trainer.lr_find(X, y, steps=80, replicas=2)
    assert found.batch_losses.shape == (2, len(found.lrs))
    np.testing.assert_allclose(found.lrs, (1e-7 * 1e8 ** (np.arange(80) / 79))[: len(found.lrs)], rtol=1e-9)
    np.testing.assert_allclose(found.batch_losses[:, :10], found.losses[0], rtol=1e-4)
    assert found.losses.min() < 0.8 * found.losses[0]


def test_the_same_call_finds_the_same(toy: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 16, 3))
    first, second = (trainer.lr_find(X, y) for _ in range(2))
    np.testing.assert_array_equal(first.losses, second.losses)
    assert first.suggestion == second.suggestion


def test_a_loss_in_python_finds_what_the_native_one_finds(toy: Any) -> None:
    X = np.linspace(-1, 1, 160, dtype=np.float32).reshape(-1, 1)

    def squared(prediction: Any, target: Any) -> Any:
        error = prediction.astype(np.float64) - target
        return (error**2).mean(axis=1), 2 * error

    finds = [hl.Trainer(hl.nn.Linear(1, 1), loss, seed=1).lr_find(X, 2 * X) for loss in ("mse", squared)]
    assert finds[0].suggestion == finds[1].suggestion
    np.testing.assert_allclose(finds[0].losses, finds[1].losses, rtol=1e-4)


def test_rows_without_weight_do_not_count(toy: Any) -> None:
    """A batch of zero weights has no loss, which is no divergence; what its rows hold is of no account."""
    X = np.linspace(-1, 1, 320, dtype=np.float32).reshape(-1, 1)
    weight = np.repeat([1.0, 0.0], 160)
    y = np.where(weight[:, None] > 0, 2 * X, 1e6)
    found = hl.Trainer(hl.nn.Linear(1, 1), "mse").lr_find(X, y, sample_weight=weight, batch_size=2)
    assert found.suggestion is not None
    assert found.losses[0] < 10


def test_a_flat_loss_gives_no_suggestion_but_a_reason(toy: Any) -> None:
    X, _ = toy.classes(320)
    found = hl.Trainer(toy.mlp(6, 16, 3)).lr_find(np.zeros_like(X), np.arange(320) % 3)
    assert found.suggestion is None
    assert "hardly falls at any rate" in found.reason
    assert "overfit_batch" in found.reason
    assert repr(found).startswith("LrFind(no suggestion: the loss hardly falls")


def test_ranges_that_miss_the_rate_say_so(toy: Any) -> None:
    X, y = toy.classes()
    low = hl.Trainer(toy.mlp(6, 16, 3)).lr_find(X, y, end=1e-2)
    assert low.suggestion == pytest.approx(1e-3)
    assert "try a larger end" in low.reason
    assert not low.diverged
    trainer = hl.Trainer(toy.mlp(6, 16, 3), "mse", optimizer=hl.optim.SGD(0.1))
    high = trainer.lr_find(1e4 * X, np.eye(3, dtype=np.float32)[y], start=1.0)
    assert high.suggestion is None
    assert "smaller start, got 1" in high.reason


def test_a_loss_that_is_nan_before_training_says_so(toy: Any) -> None:
    def broken(prediction: Any, target: Any) -> Any:
        return np.full(len(prediction), np.nan), np.zeros_like(prediction)

    X, y = toy.classes()
    found = hl.Trainer(toy.mlp(6, 3), broken).lr_find(X, y)
    assert (found.suggestion, len(found.lrs)) == (None, 0)
    assert "the loss is nan without any training" in found.reason
    assert "nan without any training" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"start": 0.0}, ValueError, r"\[lr_find\] start and end must be 0 < start < end, got 0 and 10"),
        ({"start": 1.0, "end": 0.5}, ValueError, "got 1 and 0.5"),
        ({"end": float("inf")}, ValueError, "end must be finite"),
        ({"steps": 3}, ValueError, "steps must be >= 10, got 3"),
        ({"replicas": 0}, ValueError, "replicas must be >= 1"),
        ({"batch_size": 0}, ValueError, r"\[lr_find\] batch_size must be >= 1"),
        ({"X": np.ones((5, 6))}, hl.ShapeError, r"\[lr_find\]"),
    ],
)
def test_bad_arguments(toy: Any, arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    X, y = toy.classes()
    with pytest.raises(error, match=match):
        hl.Trainer(toy.mlp(6, 3)).lr_find(**{"X": X, "y": y, **arguments})


def test_the_plot_shows_the_suggestion(toy: Any) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    X, y = toy.classes()
    found = hl.Trainer(toy.mlp(6, 16, 3)).lr_find(X, y)
    ax = found.plot()
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "loss")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["batches", "smoothed mean", f"suggestion {found.suggestion:.2g}"]
    low, high = ax.get_ylim()
    assert low < found.losses.min() < found.losses[0] < high
    other = pyplot.subplots()[1]
    assert found.plot(other) is other
    pyplot.close("all")


def test_without_matplotlib_the_plot_says_what_to_install(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = toy.classes()
    found = hl.Trainer(toy.mlp(6, 3)).lr_find(X, y)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'hotloop\[plot\]'"):
        found.plot()
