# SPDX-License-Identifier: Apache-2.0
"""Trainers in files: what comes back is what was saved, to the bit, and goes on as if never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl


def test_save_and_load_go_on_with_the_same_bits(toy: Any, digest: Any, tmp_path: Path) -> None:
    X, y = toy.classes()
    model = hl.nn.Sequential(
        hl.nn.Linear(6, 8), hl.nn.BatchNorm1d(8), hl.nn.GELU(), hl.nn.Dropout(0.2), hl.nn.Linear(8, 3)
    )
    trainer = hl.Trainer(
        model, hl.losses.CrossEntropy(label_smoothing=0.1, class_weight="balanced"),
        optimizer=hl.optim.AdamW(3e-3, decay="weights"), schedule=hl.schedules.Cosine(warmup=0.1),
        early_stopping=hl.EarlyStopping(patience=7), clip_norm=1.0, seed=11,
    )  # fmt: skip
    trainer.fit(X, y, validation=0.2, epochs=3)
    trainer.preprocessor = hl.data.Preprocessor.fit(X, y, task="classification", class_names=["a", "b", "c"])
    path = tmp_path / "model.safetensors"
    trainer.save(path)
    again = hl.load(path)
    assert digest(again) == digest(trainer)
    assert again.history == trainer.history
    assert again.optimizer == trainer.optimizer
    assert again.schedule == trainer.schedule
    assert again.early_stopping == trainer.early_stopping
    assert list(again.model.state_dict()) == list(trainer.model.state_dict())
    assert again.preprocessor is not None
    np.testing.assert_array_equal(again.preprocessor.transform(X), trainer.preprocessor.transform(X))
    np.testing.assert_array_equal(again.predict_proba(X), trainer.predict_proba(X))
    assert again.evaluate(X, y) == trainer.evaluate(X, y)
    runs = [t.fit(X, y, validation=0.2, epochs=2, reset_optimizer=False).history for t in (trainer, again)]
    assert digest(again) == digest(trainer)
    assert runs[0] == runs[1]
    np.testing.assert_array_equal(hl.load_safetensors(path)["0.weight"].shape, (8, 6))


def test_files_keep_callables_by_name_only(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(40)
    path = tmp_path / "model.safetensors"

    def own_loss(z: Any, target: Any) -> Any:
        return (z**2).mean(axis=1), 2 * z / z.shape[1]

    trainer = hl.Trainer(toy.mlp(6, 3), own_loss)
    trainer.fit(X, y, epochs=1)
    trainer.save(path)
    again = hl.load(path)
    np.testing.assert_array_equal(again.predict(X), trainer.predict(X))
    with pytest.raises(RuntimeError, match=r"own_loss only; give it as loss="):
        again.evaluate(X, y)


def test_named_inputs_and_shared_parameters_travel(toy: Any, tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = {"num": rng.normal(size=(50, 2)), "cat": rng.integers(0, 4, 50)}
    trainer = hl.Trainer(toy.two_inputs())
    trainer.fit(X, X["cat"] % 2, epochs=1)
    trainer.save(tmp_path / "m")
    np.testing.assert_array_equal(hl.load(tmp_path / "m").predict(X), trainer.predict(X))

    shared = hl.nn.Linear(3, 3)
    tied = hl.Trainer(hl.nn.Sequential(shared, hl.nn.Tanh(), shared), "mse")
    Z = rng.normal(size=(20, 3))
    tied.fit(Z, Z, epochs=1)
    tied.save(tmp_path / "t")
    again = hl.load(tmp_path / "t")
    again.fit(Z, Z, epochs=2)
    tied.fit(Z, Z, epochs=2)
    assert list(again.model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    np.testing.assert_array_equal(again.predict(Z), tied.predict(Z))


def test_bad_files(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hl.load(tmp_path / "none")
    plain = tmp_path / "plain"
    hl.save_safetensors({"w": np.zeros(3)}, plain)
    with pytest.raises(hl.CheckpointError, match="not a trainer"):
        hl.load(plain)
    X, y = toy.classes(20)
    trainer = hl.Trainer(toy.mlp(6, 3))
    trainer.fit(X, y, epochs=1)
    path = tmp_path / "model"
    trainer.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(hl.CheckpointError, match="damaged"):
        hl.load(path)
