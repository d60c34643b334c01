# SPDX-License-Identifier: Apache-2.0
"""Every test of a kernel that asks for ``unit`` runs once per column of the kernel table."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.harness import UNITS


@pytest.fixture(params=UNITS, ids=lambda unit: f"{unit[0]}-{np.dtype(unit[1]).name}")
def unit(request: pytest.FixtureRequest) -> tuple[str, type]:
    """(isa, dtype)"""
    found: tuple[str, type] = request.param
    return found
