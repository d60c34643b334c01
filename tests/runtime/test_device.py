# SPDX-License-Identifier: Apache-2.0
"""Devices that cannot be used say why; what "auto" means follows from what a run costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core
from hotloop.compile import compile_plan
from hotloop.runtime import device, device_choice
from tests.compile.graphs import ADAMW, mlp, train_spec


class Library:
    """A device library that answers as told."""

    def __init__(self, *, count: Any = 1, versions: Any = (13000, 13000)) -> None:
        self._count, self._versions = count, versions

    def count(self) -> int:
        if isinstance(self._count, Exception):
            raise self._count
        return int(self._count)

    def versions(self) -> tuple[int, int]:
        found: tuple[int, int] = self._versions
        return found


def refusal(status: int) -> hl.DeviceError:
    error = hl.DeviceError("could not count the devices: cudaErrorX: words")
    error.status = status  # type: ignore[attr-defined]
    return error


def pretend(monkeypatch: pytest.MonkeyPatch, found: Library) -> None:
    monkeypatch.setattr(device, "library", lambda kind: found)
    monkeypatch.setattr(device, "_opened", {})


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Library(count=refusal(1)), "no NVIDIA driver was found .*; install one"),
        (
            Library(count=refusal(2), versions=(11040, 13000)),
            "the NVIDIA driver is too old: it knows CUDA 11.4, this build needs 13.0; update the driver",
        ),
        (Library(count=refusal(2), versions=(0, 13000)), "no NVIDIA driver was found .*missing or broken"),
        (Library(count=refusal(3)), "there is no NVIDIA GPU"),
        (Library(count=0), "there is no NVIDIA GPU"),
        (Library(count=refusal(5)), "could not count the devices"),
    ],
)
def test_each_reason_has_its_words(monkeypatch: pytest.MonkeyPatch, found: Library, words: str) -> None:
    pretend(monkeypatch, found)
    listed = hl.devices()[-1]
    assert (listed.kind, listed.available) == ("cuda", False)
    with pytest.raises(
        hl.DeviceError, match=rf"\[Trainer\] device='cuda' cannot be used: {words}.*device='cpu'"
    ):
        hl.Trainer(hl.nn.Linear(2, 1), device="cuda")
    with pytest.raises(hl.DeviceError, match=words):
        hl.TrainStep(hl.nn.Linear(2, 1), "mse", device="cuda")


def test_hidden_devices_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Library(count=0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES='-1' may hide it" in (device.why_not("cuda") or "")


def test_usable_devices_are_listed_without_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Library(count=2))
    assert [(d.kind, d.available) for d in hl.devices()] == [("cpu", True), ("cuda", True), ("cuda", True)]
    assert not device.is_open("cuda")


def test_a_library_of_another_version_is_refused(tmp_path: Any) -> None:
    (tmp_path / "none.so").write_text("not a library")
    with pytest.raises(hl.DeviceError, match="cannot open"):
        _core.DeviceLibrary(str(tmp_path / "none.so"))


def test_unknown_devices_and_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="device"):
        hl.Trainer(hl.nn.Linear(2, 1), device="tpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision"):
        hl.Trainer(hl.nn.Linear(2, 1), precision="int8")  # type: ignore[arg-type]


def plan(width: int, rows: int) -> Any:
    return compile_plan(mlp((width, width, width, 10)), train_spec(rows=rows, optimizer=ADAMW))


def choose(width: int, batches: int) -> device_choice.Choice:
    return device_choice.choose(
        plan(width, 128), batches=batches, batch_size=128, data_bytes=1 << 20, threads=2
    )


def test_small_runs_ask_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(kind: str) -> str:
        raise AssertionError("a driver was asked")

    monkeypatch.setattr(device, "why_not", asked)
    assert choose(32, 100).kind == "cpu"
    assert device_choice.is_over_soon(1_000, 10_000) and not device_choice.is_over_soon(10**6, 10**6)


def test_long_runs_of_large_networks_take_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "why_not", lambda kind: None)
    chosen = choose(1024, 20_000)
    assert chosen.kind == "cuda" and "on the CPU" in chosen.reason
    monkeypatch.setattr(device, "why_not", lambda kind: "there is no NVIDIA GPU")
    assert choose(1024, 20_000) == device_choice.Choice("cpu", "there is no NVIDIA GPU")


def test_a_run_says_where_it_was() -> None:
    trainer = hl.Trainer(hl.nn.Linear(3, 1), "mse", progress=False)
    run = trainer.fit(np.eye(3, dtype=np.float32), np.ones(3, np.float32), epochs=1)
    about = run.about["environment"]
    assert about["device"] == "cpu" and "before a GPU is ready" in about["device chosen"]


def test_a_forked_process_is_told_to_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_opened", {"cuda": (-1, object())})
    with pytest.raises(hl.DeviceError, match=r"forked off, which CUDA does not survive.*'spawn'"):
        device.open_device("cuda", "test")
