# SPDX-License-Identifier: Apache-2.0
"""Kernels on a GPU, beside the chip's limits and torch: python -m bench.gpu.kernels [--save] [--out FOLDER]

First every result is compared with a float64 reference (of the whole work where it is small, of sampled rows else)
and with torch's. Then graphs of launches in alternating rounds, by the device's clock: ``torch`` is eager (what its
host needs for a launch counts as soon as that is longer), ``torch graph`` the same calls in a CUDA graph. Operands
stay where the last launch left them: what fits into the cache is measured from there, for everybody. ``--device
simt`` runs all of it on the emulator, at tiny sizes, to test this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench._harness import RESULTS, Row, machine, save, table
from bench.gpu.device import DeviceLimits, cuda_torch, describe, measure_limits, open_library, torch_seconds
from bench.gpu.works import WORKS, Work
from hotloop import _core
from hotloop.benchmarks.kernel_settings import SETTINGS, fields_of
from hotloop.benchmarks.kernels import DROPOUT, GROUPS
from hotloop.reference import REFERENCES, Context

ROUNDS = 3  # of each turn
TURNS = 3
GRAPH_SECONDS = 5e-3  # what the launches of one graph take together, about
MOST_LAUNCHES = 50
#: Largest part of the largest element by which a result may differ: rounding of float32 over long sums; of
#: operands to 10 bits (tf32) or 7 (bf16), which sums of random signs make no worse.
TOLERANCE = {"float32": 1e-5, "tf32": 4e-3, "bf16": 3e-2}
REFERENCE_ELEMENTS = 1 << 22  # more than this and rows are sampled
Call = Callable[[], Mapping[str, Any]]


def draw(work: Work, *, tiny: bool) -> dict[str, Any]:
    fields, _ = fields_of(work.kernel, np.random.default_rng(0), work.tiny if tiny else work.setting)
    for name in work.signed:
        if fields[name] is not None:
            fields[name] -= np.float32(0.5)
    return fields


def run_ours(device: str, work: Work, fields: dict[str, Any], times: int = 1, rounds: int = 0) -> list[float]:
    """On copies of the operands; outputs come back in ``fields``."""
    found: list[float] = open_library(device).run_kernel(
        work.kernel, fields, groups=list(GROUPS), dropout=list(DROPOUT), precision=work.precision, times=times, rounds=rounds
    )  # fmt: skip
    return found


def outputs_of(kernel: str) -> list[str]:
    return [name for name, kind, _ in _core.kernels()[kernel] if kind.startswith(("Out", "InOut"))]


def assert_near(work: Work, name: str, found: Any, expected: Any) -> None:
    """Raises `AssertionError` naming the work and the output; NaN never passes."""
    scale = float(np.max(np.abs(expected), initial=1e-30))
    error = float(np.max(np.abs(np.asarray(found, np.float64) - expected), initial=0.0)) / scale
    assert error <= TOLERANCE[work.precision], (
        f"{work.name}: {name} differs by {error:.1e} of its largest element, allowed {TOLERANCE[work.precision]:.0e}"
    )


def check_against_reference(device: str, work: Work, start: dict[str, Any], *, tiny: bool) -> None:
    """The kernel as it will be timed, beside the reference in float64."""
    found = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in start.items()}
    run_ours(device, work, found)
    if work.kernel == "matmul" and start["m"] * start["n"] * start["k"] > REFERENCE_ELEMENTS:
        check_sampled_rows(work, start, found)
        return
    exact = {
        k: v.astype(np.float64) if getattr(v, "dtype", None) == np.float32 else v for k, v in start.items()
    }
    exact = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in exact.items()}
    if work.kernel == "cross_entropy" and start["logits"].size > REFERENCE_ELEMENTS:
        exact, found = first_rows(exact, 64), first_rows(found, 64)
    context = Context(seed=0, run=0, step=0, groups=np.array([GROUPS]), dropout=DROPOUT)
    REFERENCES[work.kernel](SimpleNamespace(**exact), context)
    for name in outputs_of(work.kernel):
        if exact[name] is not None:
            assert_near(work, name, found[name], exact[name])


def first_rows(fields: dict[str, Any], rows: int) -> dict[str, Any]:
    """A cross entropy's fields cut to its first rows."""
    cols = fields["cols"]
    cut = {name: v[: rows * cols] if name in ("logits", "dlogits") else v[:rows] for name, v in fields.items()
           if isinstance(v, np.ndarray)}  # fmt: skip
    return {**fields, **cut, "rows": rows}


def check_sampled_rows(work: Work, start: dict[str, Any], found: dict[str, Any]) -> None:
    """Eight rows of a large product, of the first and last tiles among them."""
    m, n, k = start["m"], start["n"], start["k"]
    rows = np.unique(np.linspace(0, m - 1, 8).astype(int))
    a = np.lib.stride_tricks.as_strided(
        start["a"], (m, k), (4 * start["a_stride_m"], 4 * start["a_stride_k"])
    )
    b = np.lib.stride_tricks.as_strided(
        start["b"], (k, n), (4 * start["b_stride_k"], 4 * start["b_stride_n"])
    )
    exact = a[rows].astype(np.float64) @ b.astype(np.float64)
    if start["bias"] is not None:
        exact = np.maximum(exact + start["bias"], 0.0)
    assert_near(work, "out", found["out"].reshape(m, n)[rows], exact)


def peers_of(work: Work, start: dict[str, Any], torch: Any) -> dict[str, Call]:
    """torch's calls, after their results have been compared with ours."""
    if torch is None or work.peer is None:
        return {}
    tensors = {k: torch.from_numpy(v).cuda() for k, v in start.items() if isinstance(v, np.ndarray)}
    call = work.peer(torch, start, tensors)
    calls: dict[str, Call] = {"torch": call, "torch graph": call}
    if work.compiled:
        calls["torch compiled"] = torch.compile(call)
    return calls


def those_that_run(work: Work, calls: Mapping[str, Call], torch: Any) -> dict[str, Call]:
    """The calls that can be timed; why another cannot (no compiler for torch.compile, ...) is printed."""
    found: dict[str, Call] = {}
    for name, call in calls.items():
        try:
            torch_seconds(torch, call, 1, 1, graph=name == "torch graph")
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            print(f"left out: {name} on {work.name}: {type(error).__name__}: {reason}", flush=True)
        else:
            found[name] = call
    return found


def check_against_torch(device: str, work: Work, start: dict[str, Any], calls: Mapping[str, Call]) -> None:
    if not calls:
        return
    found = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in start.items()}
    run_ours(device, work, found)
    for name, tensor in calls["torch"]().items():
        expected = tensor.float().cpu().numpy().ravel()
        assert_near(work, name, found[name].ravel(), expected.astype(np.float64))


def measure(device: str, work: Work, limits: DeviceLimits, *, tiny: bool, torch: Any) -> list[Row]:
    """A row for every contestant."""
    start = draw(work, tiny=tiny)
    check_against_reference(device, work, start, tiny=tiny)
    calls = peers_of(work, start, torch)
    check_against_torch(device, work, start, calls)
    calls = those_that_run(work, calls, torch)
    once = min(run_ours(device, work, start, rounds=2))
    times = 1 if tiny else max(1, min(MOST_LAUNCHES, int(GRAPH_SECONDS / once)))
    seconds: dict[str, list[float]] = {"hotloop": [], **{name: [] for name in calls}}
    for _ in range(1 if tiny else TURNS):
        seconds["hotloop"] += run_ours(device, work, start, times, ROUNDS)
        for name, call in calls.items():
            seconds[name] += torch_seconds(torch, call, times, ROUNDS, graph=name == "torch graph")
    ours = Row(work.name, "hotloop", tuple(seconds["hotloop"]))
    if tiny:  # other sizes than the name's: a rate would mean nothing
        return [ours]
    rows = [Row(work.name, "hotloop", ours.seconds, rates(work, ours.median, limits))]
    for name in calls:
        row = Row(work.name, name, tuple(seconds[name]))
        extra = {"over hotloop": round(row.median / ours.median, 3), "target": (work.target or {}).get(name)}
        rows.append(Row(work.name, name, row.seconds, extra))
    return rows


def rates(work: Work, seconds: float, limits: DeviceLimits) -> dict[str, Any]:
    """What the time means beside the chip's limits, of memory and of arithmetic."""
    gbs = work.n_bytes / seconds * 1e-9
    extra: dict[str, Any] = {"GB/s": round(gbs, 1), "of copy": round(gbs / limits.copy_gbs, 3)}
    if work.of_copy:
        extra["target of copy"] = work.of_copy
    if work.flops:
        extra["GFLOP/s"] = round(work.flops / seconds * 1e-9, 1)
        if peak := limits.gflops.get(work.precision):
            extra["of peak"] = round(work.flops / seconds * 1e-9 / peak, 3)
    return extra


def every_kernel(device: str, limits: DeviceLimits, *, tiny: bool) -> list[Row]:
    """Each kernel of the list in its usual setting, alone: small works, most of them from the cache."""
    rows = []
    for kernel, setting in SETTINGS.items():
        fields, n_bytes = fields_of(kernel, np.random.default_rng(0), setting)
        work = Work(kernel, kernel, setting, setting, n_bytes, setting.flops)
        seconds = run_ours(device, work, fields, 1 if tiny else 20, 1 if tiny else 5)
        row = Row(kernel, "hotloop", tuple(seconds))
        rows.append(Row(kernel, "hotloop", row.seconds, rates(work, row.median, limits)))
        print(f"{kernel}: {row.median * 1e6:.1f} us", flush=True)
    return rows


def report(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        notes = ", ".join(f"{k} {v}" for k, v in row.extra.items() if v is not None)
        lines.append([row.setting, row.contestant, f"{row.median * 1e6:.1f}", notes])
    return table(["work", "by", "median us", "rate, or time over hotloop's"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "simt"), default="cuda")
    parser.add_argument("--save", action="store_true", help="write <date>-gpu_kernels.json")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for it")
    arguments = parser.parse_args()
    tiny = arguments.device == "simt"
    limits = measure_limits(arguments.device, 1 << 12) if tiny else measure_limits(arguments.device)
    torch = None if tiny else cuda_torch()
    stamp = machine(describe(arguments.device, limits))

    def keep() -> None:
        """What is measured so far; whoever is stopped at a limit has that."""
        if arguments.save:
            save("gpu_kernels", rows, stamp, arguments.out)

    rows, failed = [], []
    for work in WORKS:
        try:
            rows += measure(arguments.device, work, limits, tiny=tiny, torch=torch)
        except Exception as error:  # the others are measured all the same
            failed.append(f"{work.name}: {error}")
            print(f"FAILED {failed[-1]}", flush=True)
        else:
            print(f"{work.name}: done", flush=True)
            keep()
    if not tiny:  # the emulator needs minutes for them; tests run them there
        rows += every_kernel(arguments.device, limits, tiny=tiny)
    print(report(rows))
    keep()
    for line in failed:
        print(f"FAILED {line}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
