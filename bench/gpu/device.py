# SPDX-License-Identifier: Apache-2.0
"""The device that is measured, and what it can do at most.

The rate of memory is measured in the same run; the rates of arithmetic are those that the chip's multiprocessors
have by their architecture at the highest clock that the driver names. What a chip holds under load is less.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import hotloop
from hotloop import _core
from hotloop.benchmarks.kernel_settings import fields_of, strided

#: Operations of a multiprocessor in a cycle, multiply-adds as two, sums in float32 (whitepapers of each
#: architecture): on its float32 lanes, and on its matrix units with tf32 and bf16 operands.
PER_CYCLE = {
    75: {"float32": 128},
    80: {"float32": 128, "tf32": 1024, "bf16": 2048},
    86: {"float32": 256, "tf32": 256, "bf16": 512},
    89: {"float32": 256, "tf32": 256, "bf16": 512},
    90: {"float32": 256, "tf32": 2048, "bf16": 4096},
    100: {"float32": 256, "tf32": 4096, "bf16": 8192},
    120: {"float32": 256, "tf32": 256, "bf16": 512},
}
COPIED = 1 << 26  # floats, 256 MB: several times every cache


@dataclass(frozen=True)
class DeviceLimits:
    """``copy_gbs``: bytes read and written by a copy, per second. ``gflops``: by precision; empty if unknown."""

    copy_gbs: float
    gflops: dict[str, float]


@cache
def open_library(name: str) -> Any:
    """Device 0 of ``hotloop/_cuda.so`` ("cuda") or of the emulator ("simt")."""
    path = Path(hotloop.__file__).with_name(f"_{name}.so")
    return _core.Device(_core.DeviceLibrary(str(path)), 0)


def cuda_torch() -> Any:
    """torch where it sees a GPU, else None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def ask_driver(question: str) -> str:
    """One answer of nvidia-smi, such as ``name`` or ``driver_version``; empty without it."""
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={question}", "--format=csv,noheader,nounits"],
            check=True, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.splitlines()[0].strip()


def measure_limits(name: str, floats: int = COPIED) -> DeviceLimits:
    """Copies by the kernel ``copy`` and, where torch is, by torch: the faster counts."""
    device = open_library(name)
    setting = strided("o x")
    setting = type(setting)({**setting.numbers, "d2": 1, "d3": floats})
    fields, n_bytes = fields_of("copy", np.random.default_rng(0), setting)
    rates = [n_bytes / min(device.run_kernel("copy", fields, rounds=5)) * 1e-9]
    if name == "cuda" and (torch := cuda_torch()):
        x = torch.rand(floats, device="cuda")
        y = torch.empty_like(x)
        rates.append(n_bytes / min(torch_seconds(torch, lambda: y.copy_(x), 1, 5)) * 1e-9)
    clock = ask_driver("clocks.max.sm")
    cycles = device.traits["multiprocessors"] * float(clock) * 1e6 if clock else 0.0
    per_cycle = PER_CYCLE.get(device.traits["arch"], {}) if name == "cuda" else {}
    return DeviceLimits(max(rates), {key: rate * cycles * 1e-9 for key, rate in per_cycle.items() if cycles})


def torch_seconds(torch: Any, call: Any, times: int, rounds: int, *, graph: bool = False) -> list[float]:
    """Seconds of one of ``times`` calls in a row by the device's clock, for each round."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()

    def launch() -> None:
        for _ in range(times):
            call()

    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            launch()
        launch = captured.replay
    seconds = []
    for _ in range(rounds + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        launch()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e-3 / times)
    return seconds[1:]  # the first still warms up


def describe(name: str, limits: DeviceLimits) -> dict[str, Any]:
    """What a result was measured on."""
    library = _core.DeviceLibrary(str(Path(hotloop.__file__).with_name(f"_{name}.so")))
    return {
        "device": dict(open_library(name).traits),
        "backend": name,
        "driver": ask_driver("driver_version"),
        "versions_of_cuda": list(library.versions()),
        "built_for": _core.build_info()["cuda"],
        "copy_gbs": limits.copy_gbs,
        "peak_gflops": limits.gflops,
    }
