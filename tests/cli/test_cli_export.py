# SPDX-License-Identifier: Apache-2.0
"""``hotloop export``: ONNX that onnxruntime runs to the same predictions, and weights that torch's names fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from tests.command_line import Captured, call, done, write_blobs, write_people

pytest.importorskip("cyclopts")


@pytest.fixture
def model(tmp_path: Path, capsys: Captured) -> Path:
    blobs = write_blobs(tmp_path / "blobs.csv")
    done(capsys, "train", blobs, "--target", "kind", "--epochs", "3", "--out", tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_weights(model: Path, capsys: Captured) -> None:
    out = model.parent / "new" / "weights.safetensors"
    assert done(capsys, "export", model, out) == f"4 tensors written to {out}\n"
    tensors, own = hl.load_safetensors(out), hl.load(model).model.state_dict()
    assert set(tensors) == set(own)
    assert all(np.array_equal(tensors[name], own[name]) for name in own)
    result = call(capsys, "export", model, out, "--json").result
    assert result["format"] == "safetensors" and result["tensors"]["mlp.0.weight"] == [128, 3]


@pytest.mark.parametrize("target", ["kind", "height"])
def test_onnx_gives_what_predict_gives(target: str, tmp_path: Path, capsys: Captured) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pytest.importorskip("pyarrow")
    people, model, out = (
        write_people(tmp_path / "people.csv"),
        tmp_path / "m.safetensors",
        tmp_path / "m.onnx",
    )
    options = ("--ignore", "id,day", "--drop-missing-target", "--epochs", "3", "--out", model)
    done(capsys, "train", people, "--target", target, *options)
    result = call(capsys, "export", model, out, "--json").result
    features = ["size", "height", "town"] if target == "kind" else ["size", "town", "kind"]
    outputs = ["probabilities", "label"] if target == "kind" else ["prediction"]
    assert result["format"] == "onnx" and result["inputs"] == features
    assert set(outputs) <= set(result["outputs"])
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    table = hl.data.read(people, columns=features)
    feed = {
        c.name: c.values if c.kind == "number" else np.where(c.missing, "", c.values) for c in table.columns
    }
    given = dict(zip(outputs, session.run(outputs, feed)))
    rows = call(capsys, "predict", model, people, "--json").result["predictions"]
    if target == "kind":
        assert given["label"].tolist() == [row["prediction"] for row in rows]
        shares = [row["probability"] for row in rows]
        np.testing.assert_allclose(given["probabilities"].max(axis=1), shares, rtol=1e-5)
    else:
        np.testing.assert_allclose(
            given["prediction"].ravel(), [row["prediction"] for row in rows], rtol=1e-5
        )


def test_onnx_of_the_network_alone(model: Path, capsys: Captured) -> None:
    pytest.importorskip("onnx")
    out = model.with_name("m.onnx")
    text = done(capsys, "export", model, out, "--no-preprocessing")
    assert text.startswith(f"model written to {out}\n  inputs   x\n  outputs  output, ")


@pytest.mark.parametrize(
    ("out", "message"),
    [("m.safetensors", "is the model itself"), ("m.pt", "allowed: .onnx, .safetensors")],
)
def test_what_cannot_be_is_refused(out: str, message: str, model: Path, capsys: Captured) -> None:
    before = model.read_bytes()
    ended = call(capsys, "export", model, model.with_name(out))
    assert ended.code == 2 and message in ended.err
    assert model.read_bytes() == before
