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

ROWS = (
    "softmax_fwd", "softmax_bwd", "log_softmax_fwd", "log_softmax_bwd", "cross_entropy", "mse", "mae", "huber",
    "bce_with_logits", "layer_norm_fwd", "layer_norm_bwd", "layer_norm_both_bwd", "rms_norm_fwd", "rms_norm_bwd",
)  # fmt: skip
COLUMNS = ("layer_norm_param_bwd", "rms_norm_param_bwd", "batch_norm_fwd", "batch_norm_eval", "batch_norm_bwd")


@on_devices
@with_cases(*ROWS, *COLUMNS)
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)
