# SPDX-License-Identifier: Apache-2.0
"""``hotloop info``: the installation, a model, a folder of checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from tests.command_line import Captured, call, done, process, write_blobs

pytest.importorskip("cyclopts")


def test_the_installation(capsys: Captured) -> None:
    assert done(capsys, "info").startswith(f"hotloop {hl.__version__}\n")
    result = call(capsys, "info", "--json").result
    assert set(result) == {"python", "platform", "kernels", "isas", "processors", "threads", "devices"}
    assert result["kernels"] in result["isas"]
    assert result["devices"][0]["kind"] == "cpu" and result["devices"][0]["available"] is True


def test_a_model(tmp_path: Path, capsys: Captured) -> None:
    blobs, model = write_blobs(tmp_path / "blobs.csv"), tmp_path / "m.safetensors"
    done(capsys, "train", blobs, "--target", "kind", "--epochs", "3", "--hidden", "4", "--out", model)
    out = done(capsys, "info", model)
    assert "classification of 'kind' from 3 features" in out
    assert "classes     ant, cat" in out
    result = call(capsys, "info", model, "--json").result
    assert (result["task"], result["target"], result["classes"]) == ("classification", "kind", ["ant", "cat"])
    assert result["features"] == ["size", "unit", "weight"]
    assert result["tensors"]["mlp.0.weight"] == [4, 3] and result["parameters"] == 4 * 3 + 4 + 2 * 4 + 2
    assert result["run"]["epochs"] == len(result["run"]["history"]["val_loss"]) == 3
    assert result["split"]["rows"] == [84, 18, 18]
    assert result["provenance"]["data"]["rows"] == 84


def test_checkpoints_are_represented_by_the_newest(tmp_path: Path, capsys: Captured) -> None:
    X = np.eye(4)
    trainer = hl.Trainer(hl.nn.Linear(4, 1), "mse")
    trainer.fit(X, X[:, 0], epochs=3, checkpoint=hl.Checkpoint(tmp_path))
    out = done(capsys, "info", tmp_path)
    assert "trained     3 epochs" in out
    assert re.search(r"data +4 rows, x [0-9a-f]{12}, target [0-9a-f]{12}\n", out)
    (tmp_path / "empty").mkdir()
    ended = call(capsys, "info", tmp_path / "empty")
    assert ended.code == 2 and "no checkpoint in this folder" in ended.err


def test_as_a_module(tmp_path: Path) -> None:
    child = process("info", cwd=tmp_path)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out.startswith("hotloop ")
