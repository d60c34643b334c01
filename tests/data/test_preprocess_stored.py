# SPDX-License-Identifier: Apache-2.0
"""A stored preprocessor comes back to the bit, whatever the table; damaged ones are refused."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.data.preprocess import Preprocessor
from hotloop.errors import CheckpointError
from hotloop.nn.tabular import tabular_model

NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-5, 5))
TEXTS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "A ", "b", "", "7"]))


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], list[Any]]:
    rows = draw(st.integers(1, 12))
    names = draw(
        st.lists(
            st.text(string.ascii_letters + "\u00e4 =", min_size=1, max_size=3),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    table = {
        name: draw(st.lists(draw(st.sampled_from([NUMBERS, TEXTS])), min_size=rows, max_size=rows))
        for name in names
    }
    targets = draw(st.sampled_from([st.floats(-1e3, 1e3), st.integers(0, 2), st.sampled_from(["x", "y"])]))
    return table, draw(st.lists(targets, min_size=rows, max_size=rows))


OPTIONS = st.fixed_dictionaries(
    {
        "missing": st.sampled_from(["median", "mean", 3.0]), "indicator": st.booleans(),
        "text": st.sampled_from(["auto", "onehot", "embedding"]), "clip": st.sampled_from([None, 3.0]),
        "scale": st.sampled_from(["standard", "robust", None]), "rare": st.sampled_from([None, 0, 2, 0.3]),
    }
)  # fmt: skip


def same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    else:
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), OPTIONS)
def test_any_table_is_finite_fits_its_names_and_comes_back(data: Any, options: Any) -> None:
    table, target = data
    fitted = Preprocessor.fit(table, target, **options)
    found = fitted.transform(table)
    num = found.get("num", np.zeros((len(target), 0))) if isinstance(found, dict) else found
    assert np.isfinite(num).all() and num.shape == (len(target), len(fitted.num_names))
    if isinstance(found, dict):
        starts = np.cumsum([0, *fitted.cat_sizes])
        assert ((found["cat"] >= starts[:-1]) & (found["cat"] < starts[1:])).all()
    arrays, text = fitted.stored()
    again = Preprocessor.from_stored(arrays, text)
    assert again.stored()[1] == text and again.report == fitted.report
    same(again.stored()[0], arrays)
    same(again.transform(table), found)
    same(again.transform_target(target), fitted.transform_target(target))
    if fitted.task == "regression":
        same(again.inverse_target(target), fitted.inverse_target(target))


def test_through_a_file(tmp_path: Path) -> None:
    table = {"size": [1.5, None, 3.25, 2.0], "city": ["Rome", "Oslo", None, "Rome"]}
    fitted = Preprocessor.fit(table, ["a", "b", "a", "b"], text="embedding", clip=3.0)
    trainer = hl.Trainer(tabular_model(fitted, hidden=(4,)), "cross_entropy", progress=False)
    trainer.preprocessor = fitted
    trainer.fit(fitted.transform(table), fitted.transform_target(["a", "b", "a", "b"]), epochs=2)
    trainer.save(tmp_path / "m.safetensors")
    loaded = hl.load(tmp_path / "m.safetensors")
    assert loaded.preprocessor is not None
    same(loaded.preprocessor.transform(table), fitted.transform(table))
    np.testing.assert_array_equal(
        loaded.predict(loaded.preprocessor.transform(table)), trainer.predict(fitted.transform(table))
    )
    assert loaded.preprocessor.report == fitted.report


def test_the_first_version_is_read_and_still_refuses_what_is_missing() -> None:
    arrays = {"mean": [1.0, 2.0], "scale": [2.0, 0.0], "target_mean": 5.0, "target_scale": 2.0}
    text = {"task": "regression", "feature_names": ["a", "b"], "target_name": "y", "class_names": []}
    stored = {key: np.array(value) for key, value in arrays.items()}
    fitted = Preprocessor.from_stored(stored, json.dumps(text))
    assert fitted.transform([[3.0, 9.0]]).tolist() == [[1.0, 0.0]]
    assert fitted.inverse_target([1.0]).tolist() == [7.0]
    with pytest.raises(hl.NonFiniteError, match=r"\('b'\) is missing"):
        fitted.transform({"b": [None], "a": [1.0]})
    now = Preprocessor.from_stored(*fitted.stored())
    same(now.transform([[3.0, 9.0]]), fitted.transform([[3.0, 9.0]]))


def test_damaged_and_newer_ones_are_refused() -> None:
    arrays, text = Preprocessor.fit({"a": [1, 2], "b": ["x", "y"]}, [1, 2], task="classification").stored()
    data = json.loads(text)

    def refused(match: str, arrays: Any = arrays, **changes: Any) -> None:
        with pytest.raises(CheckpointError, match=match):
            Preprocessor.from_stored(arrays, json.dumps({**data, **changes}))

    refused("has version 99; this hotloop reads 2: upgrade it", version=99)
    refused("do not match", kinds=["number"])
    refused("do not match", kinds=["number", "image"])
    refused("do not match", texts=[])
    refused("do not match", class_names=["1"])
    refused("incomplete", task="ranking")
    refused("incomplete", texts=[{}])
    for name in arrays:
        refused(
            "incomplete", {k: v for k, v in arrays.items() if k != name}
        ) if name != "class_values" else None
    with pytest.raises(CheckpointError, match="incomplete"):
        Preprocessor.from_stored(arrays, "[]")
