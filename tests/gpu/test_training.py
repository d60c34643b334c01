# SPDX-License-Identifier: Apache-2.0
"""Training on a device: what a user sees is what a CPU gives, up to rounding, and the same bits every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests.gpu.kernel_harness import DEVICES

RNG = np.random.default_rng(7)
X = RNG.standard_normal((150, 12)).astype(np.float32)
Y = (X[:, :3].sum(axis=1) > 0).astype(np.int64) + (X[:, 3] > 1)


@pytest.fixture(params=DEVICES or [pytest.param("none", marks=pytest.mark.skip("neither emulator nor GPU"))])
def kind(request: pytest.FixtureRequest) -> str:
    """The device that a trainer is asked for."""
    found: str = request.param
    return found


def network(dropout: float = 0.0) -> hl.nn.Module:
    return hl.nn.Sequential(
        hl.nn.Linear(12, 24), hl.nn.ReLU(), hl.nn.Dropout(dropout), hl.nn.LayerNorm(24), hl.nn.Linear(24, 3)
    )


def fit(device: str, *, dropout: float = 0.2, epochs: int = 3, **how: Any) -> tuple[hl.Trainer, Any]:
    settings = {name: how.pop(name) for name in ("ema", "accumulate", "clip_norm", "schedule") if name in how}
    trainer = hl.Trainer(
        network(dropout), "cross_entropy", optimizer=hl.optim.AdamW(0.01), device=device, seed=3, progress=False,
        **settings,
    )  # fmt: skip
    how = {"validation": 0.2, "epochs": epochs, "batch_size": 32} | how
    return trainer, trainer.fit(X, Y, **how)


def weights(trainer: hl.Trainer) -> np.ndarray:
    return np.concatenate([value.ravel() for value in trainer.model.state_dict().values()])


SETTINGS: list[dict[str, Any]] = [
    {},
    {"ema": 0.9},
    {"accumulate": 3},
    {"clip_norm": 0.5},
    {"schedule": hl.schedules.Cosine(warmup=2)},
    {"sample_weight": np.abs(X[:, 0])},
    {"shuffle": False},
]


@pytest.mark.parametrize("how", SETTINGS, ids=lambda how: next(iter(how), "plain"))
def test_a_run_is_that_of_the_cpu(kind: str, how: dict[str, Any]) -> None:
    there, run = fit(kind, **how)
    here, expected = fit("cpu", **how)
    assert run.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(run.history[name], values, rtol=2e-4, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(weights(there), weights(here), rtol=2e-3, atol=2e-4)
    assert there.evaluate(X, Y) == pytest.approx(here.evaluate(X, Y), rel=1e-3)
    np.testing.assert_allclose(there.predict(X), here.predict(X), rtol=2e-3, atol=5e-4)


def test_two_runs_have_the_same_bits(kind: str) -> None:
    (a, first), (b, second) = fit(kind), fit(kind)
    assert first.history == second.history
    assert np.array_equal(weights(a), weights(b))


def test_a_row_predicts_the_same_bits_in_any_batch(kind: str) -> None:
    trainer, _ = fit(kind, epochs=1)
    whole = trainer.predict(X)
    for first, count in ((0, 1), (5, 1), (3, 32), (100, 50)):
        assert np.array_equal(trainer.predict(X[first : first + count]), whole[first : first + count])


def test_the_best_epoch_comes_back(kind: str) -> None:
    _, run = fit(kind, epochs=6, dropout=0.0)
    assert run.best_epoch is not None
    assert run.history["val_loss"][run.best_epoch - 1] == min(run.history["val_loss"])


def test_a_run_resumes_on_its_bits(kind: str, tmp_path: Path) -> None:
    whole, expected = fit(kind, epochs=4)
    fit(kind, epochs=4, checkpoint=hl.Checkpoint(tmp_path, every="epoch", keep=9), max_time=None)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) >= 3
    trainer = hl.Trainer(
        network(0.2), "cross_entropy", optimizer=hl.optim.AdamW(0.01), device=kind, seed=3, progress=False
    )  # fmt: skip
    run = trainer.fit(X, Y, validation=0.2, epochs=4, batch_size=32, resume=files[1])
    assert run.history == expected.history
    assert np.array_equal(weights(trainer), weights(whole))


def test_a_cpus_checkpoint_is_refused(kind: str, tmp_path: Path) -> None:
    fit("cpu", epochs=2, checkpoint=hl.Checkpoint(tmp_path))
    with pytest.raises(hl.CheckpointError, match="device"):
        fit(kind, epochs=2, resume=tmp_path)


def test_saved_models_load_on_the_cpu(kind: str, tmp_path: Path) -> None:
    trainer, _ = fit(kind)
    trainer.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(loaded.predict(X), trainer.predict(X), rtol=1e-4, atol=1e-5)


def test_what_is_assigned_to_the_model_goes_along(kind: str) -> None:
    trainer, _ = fit(kind, epochs=1)
    state = {name: np.zeros_like(value) for name, value in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(state)
    assert not trainer.predict(X).any()


def test_steps_by_hand_are_those_of_the_cpu(kind: str) -> None:
    steps = {}
    for device in (kind, "cpu"):
        step = hl.TrainStep(network(0.3), "cross_entropy", hl.optim.AdamW(0.01), device=device, seed=5)
        losses = [step(X[i : i + 30], Y[i : i + 30]) for i in range(0, 150, 30)]
        loss, gradients = step.loss_and_grads(X[:20], Y[:20])
        step.update()
        steps[device] = [*losses, loss], gradients, np.array(step.flat_params), step.predict(X[:9])
    there, here = steps[kind], steps["cpu"]
    np.testing.assert_allclose(there[0], here[0], rtol=2e-4)
    for name, gradient in here[1].items():
        np.testing.assert_allclose(there[1][name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(there[2], here[2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(there[3], here[3], rtol=1e-3, atol=1e-4)


def test_a_loss_of_ones_own_runs_between_two_halves(kind: str) -> None:
    def squares(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        error = prediction - target
        return (error**2).mean(axis=1), 2 * error / error.shape[1]

    target = X[:, :3] * 0.5
    runs = {}
    for device in (kind, "cpu"):
        trainer = hl.Trainer(network(), squares, metrics=None, device=device, seed=1, progress=False)
        runs[device] = trainer.fit(X, target, epochs=2, batch_size=50).history["loss"]
    np.testing.assert_allclose(runs[kind], runs["cpu"], rtol=1e-4)


def test_parameters_written_in_place_are_seen(kind: str) -> None:
    step = hl.TrainStep(hl.nn.Linear(12, 1), "mse", hl.optim.SGD(0.0), device=kind)
    step(X, X[:, :1])
    flat = step.flat_params
    before = step.predict(X[:4])
    flat[...] = 0
    assert not step.predict(X[:4]).any() and before.any()
    step.lr = 0.1
    step(X, X[:, :1])
    assert flat.any()  # the view is of the parameters as they are now


def test_labels_outside_the_classes_are_refused_before_anything_runs(kind: str) -> None:
    bad = Y.copy()
    bad[77] = 9
    trainer = hl.Trainer(network(), "cross_entropy", device=kind, progress=False)
    with pytest.raises(hl.LabelError, match="77"):
        trainer.fit(X, bad)


def test_divergence_ends_the_run(kind: str) -> None:
    trainer = hl.Trainer(
        network(), "cross_entropy", optimizer=hl.optim.SGD(1e30), device=kind, progress=False
    )
    with pytest.warns(hl.HotloopWarning):
        run = trainer.fit(X, Y, epochs=5)
    assert run.stop_reason == "divergence"
    assert np.isfinite(weights(trainer)).all()


def test_float64_is_for_the_cpu(kind: str) -> None:
    with pytest.raises(hl.DeviceError, match="float64 runs on the CPU only"):
        hl.TrainStep(network(), "mse", device=kind, dtype="float64")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_coarser_products_stay_near(kind: str, precision: str) -> None:
    losses = {}
    for name in ("float32", precision):
        trainer = hl.Trainer(
            network(), "cross_entropy", optimizer=hl.optim.AdamW(0.01), device=kind, seed=3, progress=False,
            precision=name,
        )  # fmt: skip
        losses[name] = trainer.fit(X, Y, epochs=3).history["loss"]
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.05)
