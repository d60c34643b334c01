# SPDX-License-Identifier: Apache-2.0
"""Every kernel on one core, beside the limits of this machine.

The rate is of the arithmetic where that is the limit (GFLOP/s), else of all operands' bytes (GB/s; operands
that stay in cache may exceed the rate of main memory). Each is compared with the float64 reference first.
The time includes about 5 us for entering from Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from hotloop import _core
from hotloop.benchmarks.harness import Limits, Row, table
from hotloop.benchmarks.kernel_settings import SETTINGS, fields_of
from hotloop.reference import REFERENCES, Context

GROUPS = (1e-3, 1e-2)
DROPOUT = (0.1,)
ROUNDS, CALLS, WARM_UP = 15, 5, 2


def check_against_reference(kernel: str) -> None:
    """One native call equals the reference in float64 within float32's rounding over the sizes used."""
    fields, _ = fields_of(kernel, np.random.default_rng(0))
    exact: dict[str, Any] = {
        k: v.astype(np.float64) if getattr(v, "dtype", None) == np.float32 else v for k, v in fields.items()
    }
    exact = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in exact.items()}
    _core.run_kernel(kernel, fields, groups=list(GROUPS), dropout=list(DROPOUT))
    context = Context(seed=0, run=0, step=0, groups=np.array([GROUPS]), dropout=DROPOUT)
    REFERENCES[kernel](SimpleNamespace(**exact), context)
    for name, kind, _ in _core.kernels()[kernel]:
        if kind.startswith(("Out", "InOut")) and fields[name] is not None:
            scale = max(1.0, float(np.max(np.abs(exact[name]))))
            np.testing.assert_allclose(fields[name], exact[name], rtol=1e-4, atol=1e-5 * scale, err_msg=name)


def call_of(kernel: str) -> tuple[Callable[[], None], int]:
    """The kernel on the operands of its setting, and their bytes."""
    fields, n_bytes = fields_of(kernel, np.random.default_rng(0))
    return lambda: _core.run_kernel(kernel, fields, groups=list(GROUPS), dropout=list(DROPOUT)), n_bytes


def row_of(kernel: str, seconds: Sequence[float], n_bytes: int, limits: Limits) -> Row:
    """The times of single calls with the rate that follows from their median."""
    row = Row(kernel, "hotloop", tuple(seconds))
    if flops := SETTINGS[kernel].flops:
        rate = flops / row.median * 1e-9
        extra = {"GFLOP/s": f"{rate:.1f}", "of peak": f"{100 * rate / limits.fma_gflops:.0f} %"}
    else:
        rate = n_bytes / row.median * 1e-9
        extra = {"GB/s": f"{rate:.1f}", "of stream": f"{100 * rate / limits.stream_gbs:.0f} %"}
    return Row(kernel, "hotloop", tuple(seconds), extra)


def measure(kernel: str, limits: Limits) -> Row:
    """Checks and times one kernel. Raises `AssertionError` if it differs from its reference."""
    check_against_reference(kernel)
    call, n_bytes = call_of(kernel)
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        seconds.append((time.perf_counter() - begin) / CALLS)
    return row_of(kernel, seconds, n_bytes, limits)


def report(rows: Sequence[Row]) -> str:
    """A line per kernel: best and median of a call, spread, and the rate beside the limit."""
    lines = []
    for row in rows:
        spread = "" if row.spread is None else f"{100 * row.spread:.0f} %"
        notes = ", ".join(f"{k} {v}" for k, v in row.extra.items())
        lines.append([row.setting, f"{row.best * 1e6:.1f}", f"{row.median * 1e6:.1f}", spread, notes])
    return table(["kernel", "best us", "median us", "spread", "rate"], lines)
