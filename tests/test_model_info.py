# SPDX-License-Identifier: Apache-2.0
"""What a model says of itself, before and after training, and from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data.split import SplitInfo


def test_before_and_after_training(toy: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.batch_norm(), hl.losses.CrossEntropy(label_smoothing=0.1), schedule="cosine")
    before = trainer.info
    assert (before.history, before.provenance, before.split, before.runs) == (None, None, None, 0)
    assert before.parameters == 6 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    assert before.tensors["1.running_mean"] == (8,)
    assert "CrossEntropy(label_smoothing=0.1" in str(before)
    trainer.fit(X, y, validation=0.2, epochs=20)
    text = str(trainer.info)
    assert "schedule    Cosine(final=0.0, warmup=0)" in text
    assert "0.2 of the rows held out" in text
    assert f"{trainer.history.best_epoch}*" in text  # the best epoch is in the table
    rows = [
        line for line in text.splitlines() if line.startswith("  ") and line.split()[0].strip("*").isdigit()
    ]
    assert len(rows) in (8, 9)
    assert [row.split()[0].strip("*") for row in rows][:: len(rows) - 1] == ["1", "20"]
    assert len(rows[0].split()) == 1 + len(trainer.history.history)


def test_the_file_says_the_same(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(90)
    parts = hl.split(X, y, seed=3)
    trainer = hl.Trainer(toy.mlp(6, 3))
    trainer.split = parts.info
    trainer.preprocessor = hl.data.Preprocessor.fit(
        X,
        y,
        task="classification",
        class_names=["a", "b", "c"],
        feature_names=[*"uvwxyz"],
        target_name="kind",
    )
    trainer.fit(*parts.train, validation=parts.validation, epochs=2)
    trainer.save(tmp_path / "m")
    again = hl.load(tmp_path / "m").info
    text = str(again)
    assert text == str(trainer.info)
    assert again.history == trainer.history
    assert again.features == tuple("uvwxyz")
    assert "classification of 'kind' from 6 features" in text
    assert "classes     a, b, c" in text
    assert f"63 train, 14 validation, 13 test, stratified; seed 3, rows {parts.info.digest[:12]}" in text


def test_a_custom_loss_is_named(toy: Any) -> None:
    def own(prediction: Any, target: Any) -> Any:
        return np.zeros(len(target)), np.zeros_like(prediction)

    trainer = hl.Trainer(toy.mlp(6, 3), own)
    assert trainer.info.loss.endswith("own")
    trainer.fit(*toy.classes(20), epochs=1)
    assert trainer.info.loss.endswith("own")


def test_long_lists_are_cut(toy: Any) -> None:
    X, y = toy.classes(30, features=40)
    trainer = hl.Trainer(toy.mlp(40, 3))
    trainer.preprocessor = hl.data.Preprocessor.fit(X, y, task="classification", class_names=["a", "b", "c"])
    assert "x11, ... (40)" in str(trainer.info)


def test_split_info() -> None:
    X, y = np.zeros((20, 1)), np.arange(20) % 2
    info = hl.split(X, y).info
    assert info == hl.split(X + 1, y).info  # of the rows, not of the values
    assert info != hl.split(X, y, seed=1).info
    assert (info.rows, info.seed, info.stratified) == ((14, 3, 3), 0, True)
    assert not hl.split(X, y, stratify=False).info.stratified
    assert SplitInfo.from_dict(vars(info) | {"rows": list(info.rows)}) == info
    with pytest.raises(KeyError):
        SplitInfo.from_dict({})
