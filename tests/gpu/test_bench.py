# SPDX-License-Identifier: Apache-2.0
"""What the GPU benchmarks compare is the same work: peers' calls, on torch's CPU, and the kernel on a device."""

from __future__ import annotations

import numpy as np
import pytest

from bench.gpu import kernels
from bench.gpu.works import WORKS, Work
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
