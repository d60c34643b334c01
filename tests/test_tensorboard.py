# SPDX-License-Identifier: Apache-2.0
"""Event files, read back record by record with their checksums: what TensorBoard will see."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests import runs
from tests.runs import whole

pytest.importorskip("tensorboardX")

Points = dict[str, dict[int, Any]]


def events(folder: Path) -> list[Any]:
    """The events of a folder, file by file. A record is its length, a checksum, the bytes, a checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            head = data[at : at + 8]
            (size,), (check,) = struct.unpack("<Q", head), struct.unpack_from("<I", data, at + 8)
            body = data[at + 12 : at + 12 + size]
            assert check == masked_crc32c(head)
            assert struct.unpack_from("<I", data, at + 12 + size)[0] == masked_crc32c(body)
            found.append(Event.FromString(body))
            at += 16 + size
    return found


def points(folder: Path) -> tuple[Points, list[int]]:
    """tag -> step -> value, as TensorBoard shows them: a session that starts at a step hides what was there
    from it on; and the steps of such starts."""
    tags: Points = {}
    starts = []
    for event in events(folder):
        if event.HasField("session_log"):
            starts.append(event.step)
            for values in tags.values():
                for step in [step for step in values if step >= event.step]:
                    del values[step]
        for value in event.summary.value:
            is_histogram = value.HasField("histo")
            tags.setdefault(value.tag, {})[event.step] = value.histo if is_histogram else value.simple_value
    return tags, starts


def test_metrics_by_epochs_and_batches(tmp_path: Path) -> None:
    seen: dict[int, dict[str, float]] = {}

    class Watch(hl.Callback):
        every_n_batches = 3

        def on_batch_end(self, state: Any) -> None:
            seen[state.step] = {**state.metrics, "lr": state.lr}

    trainer, fit = runs.make("dropout", callbacks=[hl.callbacks.TensorBoard(tmp_path, 3), Watch()])
    run = trainer.fit(**fit)
    assert runs.result(trainer, run, fit["X"]) == whole("dropout")
    tags, starts = points(tmp_path / "run0000")
    assert starts == []
    n = max(tags["epoch/loss"]) // run.epochs
    assert {tag for tag in tags if tag.startswith("epoch/")} == {f"epoch/{name}" for name in run.history}
    for name, values in run.history.items():  # event files hold float32
        wanted = {n * (i + 1): pytest.approx(value, rel=1e-6) for i, value in enumerate(values)}
        assert tags[f"epoch/{name}"] == wanted
    for name in ("loss", "accuracy", "lr"):
        wanted = {step: pytest.approx(values[name], rel=1e-6) for step, values in seen.items()}
        assert tags[f"batch/{name}"] == wanted
    assert not any("norm" in tag or tag.startswith("weight") for tag in tags)
    trainer.fit(**{**fit, "epochs": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run0000", "run0001"]


def test_norms_and_histograms(toy: Any, tmp_path: Path) -> None:
    kept: dict[int, Any] = {}

    class Keep(hl.Callback):
        def on_epoch_end(self, state: Any) -> None:
            kept[state.step] = [
                {name: np.array(value) for name, value in views.items()}
                for views in (state.parameters, state.gradients)
            ]

    X, y = toy.classes(64)
    board = hl.callbacks.TensorBoard(tmp_path, norms=1, histograms=2)
    hl.Trainer(toy.mlp(6, 8, 3), callbacks=[board, Keep()]).fit(X, y, epochs=4)
    tags, _ = points(tmp_path / "run0000")
    for step, (parameters, gradients) in kept.items():
        for group, arrays in (("weight_norm", parameters), ("gradient_norm", gradients)):
            for name, array in arrays.items():
                wanted = np.sqrt((array.astype(np.float64) ** 2).sum())
                assert tags[f"{group}/{name}"][step] == pytest.approx(wanted, rel=1e-6)
    assert sorted(tags["weight/0.weight"]) == [4, 8]
    for step, histogram in tags["weight/0.weight"].items():
        weights = kept[step][0]["0.weight"]
        assert (histogram.num, histogram.min, histogram.max) == (48, weights.min(), weights.max())
        assert histogram.sum == pytest.approx(weights.sum(dtype=np.float64), abs=1e-5)
        assert sum(histogram.bucket) == 48


def test_a_resumed_run_hides_what_it_repeats(tmp_path: Path) -> None:
    """The first process is lost after the checkpoint; what it wrote until then counts once."""
    logs, folder = tmp_path / "logs", tmp_path / "run"

    class Lost(hl.Callback):
        def on_epoch_end(self, state: Any) -> None:
            if state.epoch == 3:
                raise OSError("the machine is gone")

    trainer, fit = runs.make("batch_norm", callbacks=[hl.callbacks.TensorBoard(logs, 1), Lost()])
    board = trainer.callbacks[0]
    with pytest.raises(OSError, match="gone"):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(folder, every=5))
    board._close()
    trainer, fit = runs.make("batch_norm", callbacks=[hl.callbacks.TensorBoard(logs, 1)])
    run = trainer.fit(**fit, resume=folder)
    assert runs.result(trainer, run, fit["X"]) == whole("batch_norm")
    tags, starts = points(logs / "run0000")
    assert starts == [11]  # the newest checkpoint is of step 10
    assert sorted(tags["batch/loss"]) == list(range(1, 21))
    assert tags["epoch/b_loss"] == {
        4 * (i + 1): pytest.approx(value, rel=1e-6) for i, value in enumerate(run.history["b_loss"])
    }


def test_a_writer_that_an_exception_left_open_is_closed_by_the_next_run(tmp_path: Path, toy: Any) -> None:
    def fail(state: Any) -> None:
        raise ZeroDivisionError

    trainer, fit = toy.turning(callbacks=[hl.callbacks.TensorBoard(tmp_path), fail])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(**fit)
    first = trainer.callbacks[0]._writer
    trainer.callbacks = trainer.callbacks[:1]
    trainer.fit(**{**fit, "epochs": 1})
    assert first is not None and trainer.callbacks[0]._writer is None
    assert sorted(points(tmp_path / "run0000")[0]["epoch/loss"]) == [4]


@pytest.mark.parametrize("option", ["every_n_batches", "norms", "histograms"])
def test_arguments(option: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"\[TensorBoard\] {option} must be >= 1, got 0"):
        hl.callbacks.TensorBoard(tmp_path, **{option: 0})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"install the extra: pip install 'hotloop\[tensorboard\]'"):
        hl.callbacks.TensorBoard(tmp_path)


def test_only_what_there_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'TensorBored'"):
        hl.callbacks.TensorBored  # noqa: B018
