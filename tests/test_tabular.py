# SPDX-License-Identifier: Apache-2.0
"""The tabular network: its inputs and sizes, what it learns, and that a file needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data.preprocess import Preprocessor
from hotloop.nn.tabular import ACTIVATIONS, TabularMLP, tabular_model

RANDOM = np.random.Generator(np.random.Philox(5))
EFFECT = RANDOM.normal(0, 1, 30)
GROUP = RANDOM.integers(0, 30, 1500)
TABLE: dict[str, Any] = {
    "group": [f"g{i}" for i in GROUP],
    "x": np.where(RANDOM.random(1500) < 0.1, np.nan, RANDOM.normal(0, 1, 1500)),
}
TARGET = 1000 + 50 * (EFFECT[GROUP] + np.nan_to_num(TABLE["x"]))


def test_learns_numbers_and_categories_together_and_loads(tmp_path: Path) -> None:
    prepare = Preprocessor.fit(TABLE, TARGET)
    assert prepare.cat_sizes == (31,)
    model = tabular_model(prepare, hidden=(32,))
    trainer = hl.Trainer(model, "mse", optimizer=hl.optim.AdamW(0.01), progress=False)
    trainer.preprocessor = prepare
    trainer.fit(prepare.transform(TABLE), prepare.transform_target(TARGET), epochs=40, batch_size=64)
    predicted = prepare.inverse_target(trainer.predict(prepare.transform(TABLE)))
    assert np.mean((predicted - TARGET) ** 2) < 0.02 * np.var(TARGET)
    trainer.save(tmp_path / "m.safetensors")
    loaded = hl.load(tmp_path / "m.safetensors")
    assert loaded.preprocessor is not None
    new = {"group": ["g3", "unheard of", None], "x": [0.5, None, "2"]}
    np.testing.assert_array_equal(
        loaded.predict(loaded.preprocessor.transform(new)), trainer.predict(prepare.transform(new))
    )


def test_numbers_alone_and_categories_alone() -> None:
    labels = np.where(EFFECT[GROUP] > 0, "high", "low")
    for name in ("x", "group"):
        table = {name: TABLE[name]}
        prepare = Preprocessor.fit(table, labels)
        model = tabular_model(prepare, hidden=(), dropout=0.5)
        trainer = hl.Trainer(model, "cross_entropy", optimizer=hl.optim.AdamW(0.05), progress=False)
        trainer.fit(prepare.transform(table), prepare.transform_target(labels), epochs=20)
        accuracy = np.mean(
            trainer.predict_label(prepare.transform(table)) == prepare.transform_target(labels)
        )
        assert accuracy > (0.95 if name == "group" else 0.4)


def test_other_begins_neutral_and_the_rest_does_not() -> None:
    model = TabularMLP(0, (3, 4), 1, embedding_dim=2)
    trainer = hl.Trainer(model, "mse", progress=False, seed=1)
    trainer.fit({"cat": np.array([[1, 4], [2, 5]], np.int32)}, np.zeros(2), epochs=1)
    weight = model.state_dict()["embedding.weight"]
    assert weight.shape == (7, 2)
    assert (weight[[0, 3]] == 0).all() and (weight[[1, 2, 4, 5, 6]] != 0).all()


@pytest.mark.parametrize("activation", [*ACTIVATIONS, hl.nn.Softplus])
def test_every_activation_trains(activation: Any) -> None:
    model = TabularMLP(2, (), 1, hidden=(4, 3), dropout=0.1, activation=activation)
    run = hl.Trainer(model, "mse", progress=False).fit(np.eye(2, dtype=np.float32), np.ones(2), epochs=2)
    assert np.isfinite(run.history["loss"]).all()


def test_what_makes_no_model() -> None:
    with pytest.raises(hl.ShapeError, match="neither numbers nor tables"):
        TabularMLP(0, (), 1)
    with pytest.raises(ValueError, match=r"activation must be one of relu, gelu, .*; got 'rely'"):
        TabularMLP(1, (), 1, activation="rely")
    with pytest.raises(ValueError, match="fitted without a target"):
        tabular_model(Preprocessor.fit([[1.0], [2.0]]))
