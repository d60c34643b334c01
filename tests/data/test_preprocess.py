# SPDX-License-Identifier: Apache-2.0
"""Preprocessor: the numbers it learns, constant columns, exactness through files, and what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data.preprocess import Preprocessor
from hotloop.errors import CheckpointError, DTypeError, LabelError, NonFiniteError, ShapeError

RANDOM = np.random.Generator(np.random.Philox(1))
X = RANDOM.normal(5, 3, (50, 4)) * [1, 1e-6, 1e9, 1]
LABELS = RANDOM.integers(0, 3, 50)
NAMES = ("low", "mid", "high")


def classes() -> Preprocessor:
    return Preprocessor.fit(X, LABELS, task="classification", class_names=NAMES)


def test_standardises_with_the_population_statistics() -> None:
    z = classes().transform(X)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, (X - X.mean(axis=0)) / X.std(axis=0), rtol=1e-6, atol=1e-6)
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler().fit(X)
    np.testing.assert_allclose(z, scaler.transform(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e300, 1e-300])
def test_a_constant_column_gives_exact_zeros_and_no_warning(value: float) -> None:
    columns = np.stack([np.full(1000, value), np.arange(1000.0)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = Preprocessor.fit(columns, np.zeros(1000), task="regression")
        z = fitted.transform([[value, 1.0], [value + 1, 2.0]])
    assert z[:, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_extreme_units_neither_overflow_nor_vanish(factor: float) -> None:
    column = np.arange(5.0).reshape(-1, 1)
    expected = Preprocessor.fit(column, np.zeros(5), task="regression").transform(column)
    scaled = Preprocessor.fit(column * factor, np.zeros(5), task="regression").transform(column * factor)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


def test_regression_targets_go_there_and_back() -> None:
    y = RANDOM.normal(20_000, 300, 50)
    fitted = Preprocessor.fit(X, y, task="regression")
    scaled = fitted.transform_target(y)
    assert scaled.dtype == np.float32
    assert abs(scaled.mean()) < 1e-6
    assert scaled.std() == pytest.approx(1)
    np.testing.assert_allclose(fitted.inverse_target(scaled.reshape(-1, 1)), y, rtol=1e-7)


def test_a_constant_target_comes_back_exactly() -> None:
    fitted = Preprocessor.fit(X, np.full(50, 0.1), task="regression")
    assert fitted.transform_target(np.full(3, 0.1)).tolist() == [0, 0, 0]
    assert fitted.inverse_target(np.zeros((2, 1))).tolist() == [0.1, 0.1]


def test_labels_and_names() -> None:
    fitted = classes()
    np.testing.assert_array_equal(fitted.transform_target(LABELS.astype(np.uint8)), LABELS)
    assert fitted.labels_of(["high", "low"]).tolist() == [2, 0]
    with pytest.raises(
        LabelError, match="row 1 has class 'huge', which the model does not know; allowed: low"
    ):
        fitted.labels_of(["low", "huge"])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_stored_and_restored_to_the_bit(task: Any, tmp_path: Path) -> None:
    fitted = Preprocessor.fit(
        X, LABELS, task=task, class_names=NAMES, feature_names=list("abcd"), target_name="t"
    )
    arrays, text = fitted.stored()
    hl.save_safetensors(arrays, tmp_path / "p")
    restored = Preprocessor.from_stored(hl.load_safetensors(tmp_path / "p"), text)
    assert restored.stored()[1] == text
    np.testing.assert_array_equal(restored.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(restored.transform_target(LABELS), fitted.transform_target(LABELS))
    np.testing.assert_array_equal(restored.inverse_target(LABELS), fitted.inverse_target(LABELS))


def test_travels_in_the_model_file_and_predicts_the_same(tmp_path: Path) -> None:
    trainer = hl.Trainer(hl.nn.Linear(4, 3), loss="cross_entropy")
    trainer.preprocessor = classes()
    trainer.fit(trainer.preprocessor.transform(X), LABELS, epochs=2)
    trainer.save(tmp_path / "m")
    loaded = hl.load(tmp_path / "m")
    assert loaded.preprocessor is not None
    assert loaded.preprocessor.class_names == NAMES
    np.testing.assert_array_equal(
        loaded.predict(loaded.preprocessor.transform(X)), trainer.predict(trainer.preprocessor.transform(X))
    )


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Preprocessor.fit(X[:0], LABELS[:0], task="regression"), ShapeError, "no rows"),
        (lambda: Preprocessor.fit(X[0], LABELS, task="regression"), ShapeError, r"got \(4,\)"),
        (
            lambda: Preprocessor.fit(X, LABELS[:3], task="regression"),
            ShapeError,
            r"shape \(50,\), got \(3,\)",
        ),
        (
            lambda: Preprocessor.fit(X, LABELS, task="regression", feature_names=["a"]),
            ShapeError,
            "1 feature names",
        ),
        (lambda: Preprocessor.fit(X[:, :0], LABELS), ShapeError, "no columns"),
        (
            lambda: Preprocessor.fit(X, LABELS, task="classification", class_names=NAMES[:2]),
            LabelError,
            r"is not a class index \(expected 0 <= label < 2",
        ),
        (
            lambda: Preprocessor.fit(X, LABELS + 0.5, class_names=NAMES),
            DTypeError,
            "labels must be integers or class names, got target",
        ),
        (lambda: Preprocessor.fit(X + 0j, LABELS), DTypeError, "column 'x0' has dtype complex128"),
        (
            lambda: Preprocessor.fit([[1.0], [np.nan]], [0, 1], missing="refuse"),
            NonFiniteError,
            r"column 'x0', row 1 is missing \(1 missing in 2\)",
        ),
        (
            lambda: Preprocessor.fit([[1.0], [2.0], [-np.inf]], [0, 1, 1]),
            NonFiniteError,
            "column 'x0', row 2 is -inf",
        ),
        (
            lambda: Preprocessor.fit(X, [*LABELS[:-1], None]),
            NonFiniteError,
            r"target\[49\] is missing \(1 bad",
        ),
        (
            lambda: Preprocessor.fit(X, ["a"] * 3 + [" "] * 47),
            NonFiniteError,
            r"target\[3\] is missing \(47 bad",
        ),
        (
            lambda: Preprocessor.fit(X, ["1"] * 49 + ["x"], task="regression"),
            DTypeError,
            r"target\[49\] = 'x' is text; regression needs numbers",
        ),
        (lambda: Preprocessor.fit(X, LABELS.reshape(-1, 1)), ShapeError, r"shape \(n,\), got \(50, 1\)"),
        (lambda: Preprocessor.fit(X).transform_target(LABELS), ValueError, "without a target"),
        (
            lambda: Preprocessor.fit([[-1e308], [1e308]], [0, 1], task="regression"),
            NonFiniteError,
            "beyond float64",
        ),
        (lambda: classes().transform(X[:, :2]), ShapeError, "2 columns; the model was trained with 4"),
        (lambda: classes().transform(X * np.inf), NonFiniteError, "200 bad values"),
        (lambda: classes().transform([[0, 1e300, 0, 0]]), NonFiniteError, r"'x1'\) overflows float32"),
        (
            lambda: classes().transform_target([0, 3]),
            LabelError,
            r"target\[1\] = 3 .* label < 3; 1 bad values in 2",
        ),
        (lambda: Preprocessor.from_stored({}, "{}"), CheckpointError, "incomplete"),
        (lambda: Preprocessor.from_stored(classes().stored()[0], "not json"), CheckpointError, "incomplete"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_numbers_and_names_that_do_not_match() -> None:
    arrays, text = classes().stored()
    with pytest.raises(CheckpointError, match="do not match"):
        Preprocessor.from_stored({**arrays, "center": arrays["center"][:2]}, text)
