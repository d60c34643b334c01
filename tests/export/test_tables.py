# SPDX-License-Identifier: Apache-2.0
"""Preprocessing in the file: the columns of a table in, classes by name or quantities in their unit out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

import hotloop as hl
from hotloop.data import Preprocessor
from hotloop.nn.tabular import tabular_model
from tests.export.runtime import ROWS, outputs, session

Table = dict[str, list[Any]]


def table(rows: int = 120, seed: int = 0) -> Table:
    """Numbers with holes and a constant one, text with holes, many categories, and one that never changes."""
    rng = np.random.default_rng(seed)
    size = rng.normal(50, 20, rows)
    size[rng.random(rows) < 0.2] = np.nan
    return {
        "size": size.tolist(),
        "day": (20_000 + rng.random(rows) * 300).tolist(),  # too fine for float32
        "color": [
            None if i % 17 == 0 else ["red", "Blue", "Dark Green"][i % 3] for i in rng.integers(0, 99, rows)
        ],
        "always": [7.0] * rows,
        "city": [f"City {i}" for i in rng.integers(0, 25, rows)],
        "country": ["Norway"] * rows,
        "rooms": rng.integers(1, 6, rows).tolist(),
    }


def feed(columns: Table, rows: slice = slice(None)) -> dict[str, Any]:
    """The columns as onnxruntime takes them: missing text is ""."""
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        text = any(isinstance(v, str) for v in values)
        part = values[rows]
        arrays[name] = (
            np.array(["" if v is None else v for v in part], object) if text else np.array(part, np.float64)
        )
    return arrays


def cut(columns: Table, rows: slice) -> Table:
    return {name: values[rows] for name, values in columns.items()}


def trained(columns: Table, target: Any, loss: str, **options: Any) -> Any:
    p = Preprocessor.fit(columns, target, **options)
    trainer = hl.Trainer(tabular_model(p, hidden=(16,)), loss, progress=False)
    trainer.preprocessor = p
    trainer._session.graph_for(_arrays(p.transform(columns)), "test")
    trainer.model.initialize(2)
    return trainer


def _arrays(inputs: Any) -> Any:
    return inputs if isinstance(inputs, dict) else {"x": inputs}


def raw(trainer: Any, columns: Any) -> Any:
    """What the network gives for a table."""
    return hl.TrainStep(trainer.model, "mse", "sgd").predict(trainer.preprocessor.transform(columns))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"scale": "robust", "clip": 3.0, "text": "onehot", "rare": 8},
    {"scale": None, "indicator": False, "text": "embedding"},
    {"missing": "mean", "rare": 1, "max_onehot": 30},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_classifier_takes_the_table_and_gives_names(options: Any, tmp_path: Path) -> None:
    columns, target = table(), [["no", "perhaps", "yes"][i % 3] for i in range(120)]
    trainer = trained(columns, target, "cross_entropy", **options)
    trainer.export_onnx(tmp_path / "m.onnx")
    for rows in ROWS:
        found = outputs(tmp_path / "m.onnx", feed(columns, slice(rows)))
        expected = raw(trainer, cut(columns, slice(rows)))
        assert list(found) == ["output", "probabilities", "label"]
        np.testing.assert_allclose(found["output"], expected, rtol=1e-5, atol=1e-5)
        assert found["label"].tolist() == [("no", "perhaps", "yes")[i] for i in expected.argmax(1)]
    assert {"size": "tensor(double)", "color": "tensor(string)"}.items() <= {
        i.name: i.type for i in session(tmp_path / "m.onnx").get_inputs()
    }.items()


@pytest.mark.parametrize("options", OPTIONS)
def test_a_regression_is_given_in_the_unit_of_its_target(options: Any, tmp_path: Path) -> None:
    columns = table()
    target = np.random.default_rng(1).normal(300_000, 40_000, 120)
    trainer = trained(columns, target, "mse", task="regression", **options)
    trainer.export_onnx(tmp_path / "m.onnx")
    found = outputs(tmp_path / "m.onnx", feed(columns))
    assert list(found) == ["output", "prediction"]
    expected = trainer.preprocessor.inverse_target(raw(trainer, columns))
    assert found["prediction"].dtype == np.float64
    np.testing.assert_allclose(found["prediction"], expected, rtol=1e-5)


def test_new_missing_and_otherwise_written_categories(tmp_path: Path) -> None:
    columns = table()
    trainer = trained(columns, np.arange(120) % 2, "cross_entropy", text="onehot")
    trainer.export_onnx(tmp_path / "m.onnx")
    later: Table = {name: values[:6] for name, values in columns.items()}
    later["color"] = ["DARK GREEN", "blue", "Dark green", None, "puce", "Red"]
    later["city"] = ["city 3", "CITY 3", "City 99", None, "", "City 3"]
    later["country"] = ["Norway", "norway", "Chile", None, "", "Peru"]
    found = outputs(tmp_path / "m.onnx", feed(later))["output"]
    np.testing.assert_allclose(found, raw(trainer, later), rtol=1e-5, atol=1e-5)


def test_numbers_alone_are_one_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(5, 3, (50, 4)) * [1, 1e-6, 1e9, 1]
    X[rng.random(X.shape) < 0.2] = np.nan
    trainer = trained(X, np.arange(50) % 3, "cross_entropy", clip=2.5)  # type: ignore[arg-type]
    trainer.export_onnx(tmp_path / "m.onnx")
    found = outputs(tmp_path / "m.onnx", {"features": X})
    np.testing.assert_allclose(found["output"], raw(trainer, X), rtol=1e-5, atol=1e-5)
    (features,) = session(tmp_path / "m.onnx").get_inputs()
    assert (features.type, features.shape) == ("tensor(double)", ["batch", 4])
    about = {p.key: p.value for p in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert json.loads(about["feature_names"]) == list(trainer.preprocessor.feature_names)
    assert about["target_name"] == "target"


def test_text_alone(tmp_path: Path) -> None:
    columns = {name: values for name, values in table().items() if name in ("color", "city")}
    for text in ("onehot", "embedding"):
        trainer = trained(columns, np.arange(120) % 2, "cross_entropy", text=text)
        trainer.export_onnx(tmp_path / "m.onnx", input_names={"city": "town"})
        fed = feed(columns)
        fed["town"] = fed.pop("city")
        found = outputs(tmp_path / "m.onnx", fed)["output"]
        np.testing.assert_allclose(found, raw(trainer, columns), rtol=1e-5, atol=1e-5)


def test_what_stands_behind_the_preprocessing_alone(tmp_path: Path) -> None:
    columns = table()
    trainer = trained(columns, np.arange(120) % 2, "cross_entropy")
    trainer.export_onnx(tmp_path / "m.onnx", preprocessing=False, probabilities=False)
    given = trainer.preprocessor.transform(columns)
    given["cat"] = given["cat"].astype(np.int64)
    found = outputs(tmp_path / "m.onnx", given)
    assert list(found) == ["output"]
    np.testing.assert_allclose(found["output"], raw(trainer, columns), rtol=1e-5, atol=1e-5)


def test_a_saved_trainer_exports_what_it_did_before(tmp_path: Path) -> None:
    columns = table()
    trainer = trained(columns, np.arange(120) % 2, "cross_entropy")
    trainer.save(tmp_path / "m.safetensors")
    trainer.export_onnx(tmp_path / "a.onnx")
    hl.load(tmp_path / "m.safetensors").export_onnx(tmp_path / "b.onnx")
    a, b = (outputs(tmp_path / name, feed(columns)) for name in ("a.onnx", "b.onnx"))
    np.testing.assert_array_equal(a["output"], b["output"])
    np.testing.assert_array_equal(a["label"], b["label"])


words = st.one_of(
    st.none(), st.sampled_from(["a", "B", "b ", "Straße", "ÉTÉ", "two  words", "other", "missing"])
)
reals = st.one_of(st.none(), st.floats(-1e6, 1e6, width=32))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(words, min_size=12, max_size=12),
    one=st.lists(reals, min_size=12, max_size=12),
    options=st.sampled_from(OPTIONS),
)
def test_random_tables(text: Any, one: Any, options: Any, tmp_path: Path) -> None:
    columns: Table = {"t": [*text, "z"], "n": [*one, 1.0]}
    trainer = trained(columns, np.arange(13) % 2, "cross_entropy", **options)
    trainer.export_onnx(tmp_path / "m.onnx")
    categories = {t.keys[i]: n for t in trainer.preprocessor.texts for i, n in enumerate(t.names)}
    known = dict(columns)  # every category in its commonest spelling: the only one that the file must know
    known["t"] = [_commonest(t, categories) for t in columns["t"]]
    found = outputs(tmp_path / "m.onnx", feed(known))["output"]
    np.testing.assert_allclose(found, raw(trainer, columns), rtol=1e-5, atol=1e-5)


def _commonest(text: str | None, names: dict[str, str]) -> str | None:
    from hotloop.data.preprocess.categories import clean

    return text if text is None else names.get(clean(text), text)


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    trainer = hl.Trainer(hl.nn.Linear(2, 1), "mse", progress=False)
    path = tmp_path / "m.onnx"
    with pytest.raises(RuntimeError, match=r"\[export_onnx\].*call fit or predict first"):
        trainer.export_onnx(path)
    trainer.predict(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"has no preprocessor"):
        trainer.export_onnx(path, preprocessing=True)
    with pytest.raises(ValueError, match=r"not one of classes"):
        trainer.export_onnx(path, probabilities=True)
    trainer.preprocessor = Preprocessor.fit([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0]], [0.5, 1.5])
    with pytest.raises(hl.ShapeError, match=r"gives 3 numbers and 0 ids, and the model takes x \[B, 2\]"):
        trainer.export_onnx(path)
    assert not path.exists()
