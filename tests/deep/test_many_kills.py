# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed again and again, until they come through: hundreds of kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.test_kill import kill

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]


def test_killed_again_and_again(tmp_path: Path) -> None:
    found = kill(tmp_path, 300, "--again")
    assert found["early"] < found["killed"] / 2
