# SPDX-License-Identifier: Apache-2.0
"""Every kernel on one core, timed by pytest-benchmark: pytest bench/kernels.py

What is called, checked and compared with is `hotloop.benchmarks.kernels`.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import Kept
from hotloop.benchmarks import kernels
from hotloop.benchmarks.harness import Limits
from hotloop.benchmarks.kernel_settings import SETTINGS


@pytest.mark.parametrize("kernel", sorted(SETTINGS))
def test_kernel(kernel: str, benchmark: BenchmarkFixture, limits: Limits, kept: Kept) -> None:
    kernels.check_against_reference(kernel)
    call, n_bytes = kernels.call_of(kernel)
    benchmark.group = "kernels"
    benchmark.pedantic(
        call, rounds=kernels.ROUNDS, iterations=kernels.CALLS, warmup_rounds=kernels.WARM_UP
    )  # fmt: skip
    kept.rows.append(kernels.row_of(kernel, benchmark.stats.stats.data, n_bytes, limits))
