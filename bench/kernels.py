# SPDX-License-Identifier: Apache-2.0
"""Every kernel on one core, beside the limits of this machine: pytest bench/kernels.py

The rate is of the arithmetic where that is the limit (GFLOP/s), else of all operands' bytes (GB/s; operands
that stay in cache may exceed the rate of main memory). Each is compared with the float64 reference first.
The time includes about 5 us for entering from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench._harness import Row
from bench.conftest import Limits
from bench.settings import SETTINGS, fields_of
from hotloop import _core
from hotloop.reference import REFERENCES, Context

GROUPS = (1e-3, 1e-2)
DROPOUT = (0.1,)


def check_against_reference(kernel: str) -> None:
    """One native call equals the reference in float64 within float32's rounding over the sizes used."""
    fields, _ = fields_of(kernel, np.random.default_rng(0))
    exact = {
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


@pytest.mark.parametrize("kernel", sorted(SETTINGS))
def test_kernel(
    kernel: str, benchmark: BenchmarkFixture, limits: Limits, add_row: Callable[[Row], None]
) -> None:
    check_against_reference(kernel)
    fields, n_bytes = fields_of(kernel, np.random.default_rng(0))
    benchmark.group = "kernels"
    benchmark.pedantic(
        lambda: _core.run_kernel(kernel, fields, groups=list(GROUPS), dropout=list(DROPOUT)),
        rounds=15, iterations=5, warmup_rounds=2,
    )  # fmt: skip
    row = Row(kernel, "hotloop", tuple(benchmark.stats.stats.data))
    if flops := SETTINGS[kernel].flops:
        rate = flops / row.median * 1e-9
        extra = {"GFLOP/s": f"{rate:.1f}", "of peak": f"{100 * rate / limits.fma_gflops:.0f} %"}
    else:
        rate = n_bytes / row.median * 1e-9
        extra = {"GB/s": f"{rate:.1f}", "of stream": f"{100 * rate / limits.stream_gbs:.0f} %"}
    add_row(Row(row.setting, row.contestant, row.seconds, extra))
