# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tests.cases import KernelCase
from tests.gpu.kernel_harness import check_case, on_devices, with_cases


@on_devices
@with_cases("matmul", "pack_panels")
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)
