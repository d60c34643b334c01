# SPDX-License-Identifier: Apache-2.0
"""Old files load for ever: what each version wrote (tools/golden.py) predicts as it did, and runs go on.

Predictions are compared to 1e-6, because another instruction set rounds elsewhere; a run goes on with the
kernels that it began with, the plain C++ ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.storage.files import read_safetensors, write_safetensors

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
KINDS = ("classifier", "regression", "two_inputs", "checkpoint")

pytestmark = pytest.mark.filterwarnings("ignore:.*was written by hotloop:hotloop.HotloopWarning")


class Count(hl.Callback):
    """As in tools/golden.py: counts epochs, those before the checkpoint included."""

    epochs = 0

    def on_epoch_end(self, state: Any) -> None:
        self.epochs += 1

    def load_state_dict(self, state: Any) -> None:
        self.epochs = state["epochs"]


def expected(version: str, kind: str) -> dict[str, Any]:
    """What the version itself made of the file."""
    with np.load(GOLDEN / version / "expected.npz") as stored:
        return {k.partition("/")[2]: stored[k] for k in stored.files if k.startswith(f"{kind}/")}


def predict(trainer: Any, data: dict[str, Any]) -> Any:
    if trainer.preprocessor is not None:
        return trainer.predict_proba(trainer.preprocessor.transform(data["x"]))
    return trainer.predict(data["x"] if "x" in data else {name: data[name] for name in ("num", "cat")})


def close(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def check_resumes(path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run goes on without the code that described it, to the end that its version came to."""
    monkeypatch.setenv("HOTLOOP_ISA", "generic")
    trainer = hl.load(path)
    trainer.progress = False
    count = Count()
    trainer.callbacks = (count,)
    run = trainer.fit(
        data["x"], data["y"], validation=(data["x_val"], data["y_val"]), resume=path,
        epochs=int(data["epochs"]), batch_size=int(data["batch_size"]),
    )  # fmt: skip
    close(run.history["loss"], data["loss"])
    close(run.history["val_loss"], data["val_loss"])
    close(trainer.predict(data["x"]), data["prediction"])
    if "counted" in data:  # the first files know nothing of callbacks
        assert count.epochs == data["counted"]
    return trainer


def test_there_are_files_of_every_kind() -> None:
    assert VERSIONS
    for version in VERSIONS:
        assert {path.stem for path in (GOLDEN / version).glob("*.safetensors")} >= set(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "checkpoint"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_predicts_and_saves_again(version: str, kind: str, tmp_path: Path) -> None:
    data = expected(version, kind)
    trainer = hl.load(GOLDEN / version / f"{kind}.safetensors")
    close(predict(trainer, data), data["prediction"])
    assert trainer.history is not None and trainer.history.epochs == len(trainer.history.history["loss"]) > 0
    trainer.save(tmp_path / "again")  # in the present form
    np.testing.assert_array_equal(predict(hl.load(tmp_path / "again"), data), predict(trainer, data))


@pytest.mark.parametrize("version", VERSIONS[3:])
def test_a_table_is_prepared_as_it_was(version: str, tmp_path: Path) -> None:
    """The preprocessing to the bit, before and after it is saved again; the network as closely as any."""
    data = expected(version, "table")
    trainer = hl.load(GOLDEN / version / "table.safetensors")
    trainer.save(tmp_path / "again")
    for loaded in (trainer, hl.load(tmp_path / "again")):
        prepare = loaded.preprocessor
        assert prepare is not None
        inputs = prepare.transform({name: data[name] for name in prepare.feature_names})
        assert isinstance(inputs, dict)
        for name in ("num", "cat"):
            np.testing.assert_array_equal(inputs[name], data[f"in_{name}"])
        close(prepare.inverse_target(loaded.predict(inputs)), data["prediction"])
        assert {"missing", "spelling", "rare", "outliers"} <= {f.kind for f in prepare.report.findings}


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_where_a_model_comes_from(version: str) -> None:
    trainer = hl.load(GOLDEN / version / "classifier.safetensors")
    assert trainer.provenance is not None and trainer.split is not None
    assert trainer.provenance.fitted.startswith("20")
    assert sum(trainer.split.rows) == trainer.provenance.data.rows == 60
    assert "classes     low, middle, high" in str(trainer.info)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_goes_on(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_resumes(GOLDEN / version / "checkpoint.safetensors", expected(version, "checkpoint"), monkeypatch)


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_a_run_with_averaged_weights_and_frozen_layers_goes_on(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_resumes(GOLDEN / version / "averaged.safetensors", expected(version, "averaged"), monkeypatch)


def test_a_present_file_without_the_fields_of_later_versions_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest file's fields are all that a reader may ask for: less than these is never written, and
    whatever a new file has besides stands for its default where it is absent."""
    oldest = GOLDEN / VERSIONS[0] / "checkpoint.safetensors"
    _, then = read_safetensors(oldest)
    data = expected(VERSIONS[0], "checkpoint")
    monkeypatch.setenv("HOTLOOP_ISA", "generic")
    trainer = hl.load(oldest)
    trainer.progress = False
    fit = {"epochs": int(data["epochs"]), "batch_size": int(data["batch_size"])}
    trainer._runs = 0
    trainer.fit(
        data["x"], data["y"], validation=(data["x_val"], data["y_val"]), resume=oldest, **fit,
        checkpoint=hl.Checkpoint(tmp_path, every=3, keep=10),
    )  # fmt: skip
    stored = sorted(tmp_path.iterdir())[0]
    tensors, now = read_safetensors(stored)
    stripped = {
        key: json.dumps(_only(json.loads(now[key]), json.loads(text))) if text.startswith("{") else now[key]
        for key, text in then.items()
    }
    write_safetensors(tmp_path / "old", tensors, stripped)
    check_resumes(tmp_path / "old", data, monkeypatch)


def _only(now: Any, then: Any) -> Any:
    """``now`` without the keys that ``then`` does not have, at any depth."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: _only(value, then[key]) for key, value in now.items() if key in then}
    return now
