# SPDX-License-Identifier: Apache-2.0
"""What the trainer refuses, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"loss": "mze"}, ValueError, "unknown loss 'mze'"),
        ({"loss": hl.losses.MSE}, TypeError, "write hl.losses.MSE"),
        ({"optimizer": "adamx"}, ValueError, "unknown optimizer"),
        ({"schedule": "cosin"}, ValueError, "unknown schedule"),
        ({"early_stopping": 5}, TypeError, "hl.EarlyStopping"),
        ({"callbacks": [3]}, TypeError, "a callback must be"),
        ({"callbacks": [hl.Callback]}, TypeError, r"pass an instance: Callback\(\)"),
        ({"callbacks": hl.Callback()}, TypeError, "must be a sequence"),
        ({"clip_norm": 0}, ValueError, "clip_norm must be > 0"),
        ({"clip_value": -1}, ValueError, "clip_value"),
        ({"on_divergence": "ignore"}, ValueError, "on_divergence"),
        ({"threads": 0}, ValueError, "threads"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"progress": "yes"}, ValueError, "progress"),
        ({"device": "gpu"}, ValueError, "device"),
        pytest.param(
            {"device": "cuda"}, hl.DeviceError, "cannot be used", marks=pytest.mark.skipif(
                hl.devices()[-1].available, reason="there is a GPU, which is no mistake to ask for"
            ),
        ),
    ],
)  # fmt: skip
def test_bad_trainers(toy: Any, arguments: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        hl.Trainer(toy.mlp(6, 3), **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"epochs": 0}, ValueError, "epochs must be >= 1"),
        ({"epochs": 1.5}, TypeError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"max_time": -1}, ValueError, "max_time"),
        ({"X": np.zeros((300, 5), np.float32)}, hl.ShapeError, r"5"),
        ({"X": np.zeros(300)}, hl.ShapeError, "reshape"),
        ({"X": np.zeros((0, 6)), "y": np.zeros(0, int)}, hl.ShapeError, "0 rows"),
        ({"X": np.full((300, 6), 1e300)}, hl.NonFiniteError, "overflows float32"),
        ({"y": np.full(300, 3)}, hl.LabelError, r"y\[0\] = 3 .*0 <= y < 3; 300 bad values in 300"),
        ({"y": np.zeros(300)}, hl.DTypeError, "class labels are integers"),
        ({"y": np.zeros(299, int)}, hl.ShapeError, "300 rows and y has 299"),
        ({"y": None}, TypeError, "y is missing"),
        ({"sample_weight": -np.ones(300)}, ValueError, "negative"),
        ({"sample_weight": np.ones(3)}, hl.ShapeError, "one weight per row"),
        ({"validation": 1.0}, ValueError, r"in \(0, 1\)"),
        ({"validation": 1.5}, ValueError, "validation"),
        ({"validation": True}, TypeError, "validation"),
        ({"validation": {}}, ValueError, "empty mapping"),
        ({"validation": (np.zeros((3, 6)),)}, TypeError, r"\(X, y\) or \(X, y, weight\)"),
        ({"validation": (np.zeros((3, 6)), np.array([0, 1, 7]))}, hl.LabelError, r"val y\[2\] = 7"),
        ({"validation": (np.zeros((3, 5)), np.zeros(3, int))}, hl.ShapeError, "5"),
        ({"validation": {"dev": (np.full((3, 6), np.nan), np.zeros(3, int))}}, hl.NonFiniteError, "dev X"),
        ({"validation": {3: (np.zeros((3, 6)), np.zeros(3, int))}}, TypeError, "non-empty strings"),
    ],
)  # fmt: skip
def test_bad_fits_change_nothing(
    toy: Any, digest: Any, arguments: dict[str, Any], error: Any, text: str
) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.batch_norm(), "cross_entropy")
    trainer.fit(X, y, epochs=1)
    before, history = digest(trainer), trainer.history
    with pytest.raises(error, match=text):
        trainer.fit(**{"X": X, "y": y, "epochs": 1, **arguments})
    assert digest(trainer) == before
    assert trainer.history is history


@pytest.mark.parametrize(
    ("options", "fit", "text"),
    [
        ({"monitor": "val_f1"}, {"validation": 0.2}, "allowed: loss, accuracy, val_loss, val_accuracy"),
        ({"early_stopping": hl.EarlyStopping()}, {}, "no validation data; pass validation=0.15"),
        ({"metrics": "r2"}, {}, "does not fit the loss"),
        ({"metrics": ["f1_makro"]}, {}, "unknown metric 'f1_makro'"),
        (
            {"metrics": ["auto", "f1_macro"]},
            {},
            "'f1_macro' is computed on validation data, and there is none",
        ),
        (
            {"metrics": ["roc_auc"]},
            {"validation": 0.2},
            "'roc_auc' cannot score the validation set 'val': multi",
        ),
        (
            {"metrics": ["neg_log_loss"], "monitor": "neg_log_loss"},
            {"validation": 0.2},
            "not reported by this",
        ),
        ({"metrics": "top3_accuracy"}, {}, "'top3_accuracy' of 3 classes would always be 1"),
        ({"loss": "mse"}, {}, "nothing is broadcast"),
    ],
)
def test_choices_that_do_not_fit_the_data(toy: Any, options: Any, fit: Any, text: str) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 3), **options)
    before = trainer.model.state_dict()
    with pytest.raises(ValueError, match=text):
        trainer.fit(X, y, **fit)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert trainer.history is None


def test_batch_norm_refuses_a_last_batch_of_one_row(toy: Any) -> None:
    X, y = toy.classes(33)
    trainer = hl.Trainer(toy.batch_norm())
    with pytest.raises(hl.ShapeError, match=r"1 row \(33 rows in batches of 32\).*such as 33"):
        trainer.fit(X, y)
    with pytest.raises(hl.ShapeError, match=r"batches of 1.*such as 2"):
        trainer.fit(X[:20], y[:20], batch_size=1)
    with pytest.raises(hl.ShapeError, match="X has 1 row"):
        trainer.fit(X[:1], y[:1])
    assert trainer.fit(X, y, batch_size=33, epochs=1).epochs == 1


def test_questions_before_any_fit(toy: Any) -> None:
    X, y = toy.classes(10)
    trainer = hl.Trainer(toy.mlp(6, 3))
    with pytest.raises(RuntimeError, match="loss is not known yet"):
        trainer.predict_label(X)
    with pytest.raises(RuntimeError, match="has not seen data"):
        trainer.optimizer_state()
    with pytest.raises(RuntimeError, match="has not seen data"):
        trainer.save("never.safetensors")
    assert set(trainer.evaluate(X, y)) == {"loss", "accuracy"}


def test_dry_run_trains_nothing(toy: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 3))
    before = trainer.model.state_dict()
    run = trainer.fit(X, y, dry_run=True)
    assert (run.epochs, run.history) == (0, {})
    assert trainer.history is None
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert not any(value.any() for value in trainer.optimizer_state().values())


def test_sealed_test_data_is_counted(toy: Any) -> None:
    X, y = toy.classes()
    parts = hl.split(X, y)
    trainer = hl.Trainer(toy.mlp(6, 3))
    trainer.fit(*parts.train, validation=parts.validation, epochs=2)
    assert set(trainer.evaluate(parts.test)) == {"loss", "accuracy"}
    assert parts.test.openings == 1
    with pytest.raises(TypeError, match="holds its own y"):
        trainer.evaluate(parts.test, y)
    with pytest.raises(TypeError, match="sealed"):
        trainer.fit(X, y, validation=parts.test)
    assert parts.test.openings == 1
