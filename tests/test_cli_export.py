# SPDX-License-Identifier: Apache-2.0
"""``hotloop export``: ONNX that onnxruntime runs to the same predictions, and weights that torch's names fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from tests.command_line import Captured, call, done, write_blobs

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


def test_onnx(model: Path, capsys: Captured) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = model.with_name("m.onnx")
    result = call(capsys, "export", model, out, "--json").result
    assert result == {"model": str(model), "out": str(out), "format": "onnx"}
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_inputs()


@pytest.mark.parametrize(
    ("out", "message"),
    [("m.safetensors", "is the model itself"), ("m.pt", "allowed: .onnx, .safetensors")],
)
def test_what_cannot_be_is_refused(out: str, message: str, model: Path, capsys: Captured) -> None:
    before = model.read_bytes()
    ended = call(capsys, "export", model, model.with_name(out))
    assert ended.code == 2 and message in ended.err
    assert model.read_bytes() == before
