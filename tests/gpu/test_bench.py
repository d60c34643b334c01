# SPDX-License-Identifier: Apache-2.0
"""What the GPU benchmarks compare is the same work: peers' calls, on torch's CPU, and the kernel on a device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.gpu import kernels, training
from bench.gpu.works import WORKS, Work
from hotloop.benchmarks.pool import WorkerError
from tests.gpu.kernel_harness import on_devices

COMPARED = [
    work for work in WORKS if work.kernel != "adam"
]  # its peer keeps moments of its own, and is only timed


@on_devices
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_works_are_right_at_tiny_sizes(device: str, work: Work) -> None:
    start = kernels.draw(work, tiny=True)
    kernels.check_against_reference(device, work, start, tiny=True)
    assert all(s > 0 for s in kernels.run_ours(device, work, start, times=2, rounds=3))


@on_devices
@pytest.mark.parametrize("work", COMPARED, ids=lambda work: work.name)
def test_peers_do_the_same(device: str, work: Work) -> None:
    torch = pytest.importorskip("torch")
    start = kernels.draw(work, tiny=True)
    tensors = {k: torch.from_numpy(v.copy()) for k, v in start.items() if isinstance(v, np.ndarray)}
    assert work.peer is not None
    calls = {"torch": work.peer(torch, start, tensors)}
    assert calls["torch"]()
    kernels.check_against_torch(device, work, start, calls)


@on_devices
def test_a_wrong_result_stops_the_measurement(device: str) -> None:
    work = COMPARED[1]
    start = kernels.draw(work, tiny=True)
    found = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in start.items()}
    kernels.run_ours(device, work, found)
    exact = found["out"].astype(np.float64)
    kernels.assert_near(work, "out", found["out"], exact)
    found["out"][0] += 1e-3 * np.abs(exact).max()
    with pytest.raises(AssertionError, match=r"out differs by 1\.0e-03 of its largest element"):
        kernels.assert_near(work, "out", found["out"], exact)
    found["out"][0] = np.nan
    with pytest.raises(AssertionError, match="differs by nan"):
        kernels.assert_near(work, "out", found["out"], exact)


class Pool:
    """Stands for the contestants' processes: ``curves`` by label, or what a worker answers instead."""

    curves: dict[str, Any]
    made = 0

    def __init__(self, entries: Any) -> None:
        type(self).made += 1
        self.failed: dict[str, str] = {}
        self.workers = {label: self.worker(label, curve) for label, curve in self.curves.items()}

    def worker(self, label: str, curve: Any) -> Any:
        def ask(what: str, **details: Any) -> dict[str, Any]:
            if isinstance(curve, str) and what == curve:
                raise WorkerError(f"{label} cannot {what}")
            falling = [2.0, 1.0] if isinstance(curve, str) else curve
            return {"curve": falling, "first_step_s": 1.0, "seconds": 1e-3}

        return SimpleNamespace(entry=SimpleNamespace(contestant=label), begin=lambda network: None, ask=ask)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("curves", "kept", "wrong"),
    [
        ({"ours": [2.0, 1.0], "same": [2.0, 1.0], "other": [2.0, 1.5]}, ["ours", "same"], "other has a loss of 1.5"),
        ({"ours": [2.0, 1.0], "absent": "prepare"}, ["ours"], None),
        ({"ours": [2.0, 1.0], "dies": "round"}, [], "dies cannot round"),
        ({"ours": [1.0, 2.0], "same": [2.0, 1.0]}, [], "ours's loss does not fall"),
    ],
    ids=["another curve", "one that cannot begin", "one that dies", "ours is wrong"],
)  # fmt: skip
def test_one_network_or_contestant_that_fails_takes_no_other_with_it(
    curves: dict[str, Any], kept: list[str], wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "Pool", Pool)
    monkeypatch.setattr(Pool, "curves", curves, raising=False)
    monkeypatch.setattr(Pool, "made", 0)
    saved: list[int] = []
    networks = [*training.TINY, *training.TINY]
    rows, failed = training.measure_all(
        "simt", networks, rounds=2, round_seconds=0.0, keep=lambda rows: saved.append(len(rows))
    )
    assert [row.contestant for row in rows] == kept * 2
    assert saved == [len(kept), 2 * len(kept)][: 2 * bool(kept)]
    assert len(failed) == (2 if wrong else 0) and all((wrong or "") in line for line in failed)
    assert Pool.made == (1 if kept else 2)  # workers in the middle of a network are of no use for the next


def test_a_peer_that_cannot_run_is_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Any:
        raise ImportError("no triton")

    assert kernels.those_that_run(WORKS[0], {"torch compiled": broken}, None) == {}
    assert f"left out: torch compiled on {WORKS[0].name}: ImportError: no triton" in capsys.readouterr().out
