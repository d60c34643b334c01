# SPDX-License-Identifier: Apache-2.0
"""Kernels along rows and down columns: the cases of the CPU's kernels, sizes at the border of every way of
sharing out rows and columns, equal bits in every run, and the values that a careless formula spoils."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, Fields, KernelCase
from tests.gpu.kernel_harness import call_device, check_case, on_devices, run_device, with_cases
from tests.kernels.harness import SCHEMA, assert_same_bits, initial

SOFTMAX = ("softmax_fwd", "softmax_bwd", "log_softmax_fwd", "log_softmax_bwd")


@on_devices
@with_cases(*SOFTMAX, "cross_entropy")
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)
