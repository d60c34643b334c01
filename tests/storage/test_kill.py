# SPDX-License-Identifier: Apache-2.0
"""A run that is killed at any moment goes on to the bits of one that never was: see killing.py."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import killing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")


def kill(folder: Path, kills: int, *options: str) -> dict[str, Any]:
    """What killing.py prints; it ends well, and no run ended on other bits."""
    seed = str(random.randrange(2**32))
    command = [sys.executable, str(killing.__file__), str(folder), str(kills), seed, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280 if kills < 100 else 1700, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["wrong"] == [], f"seed {seed}"
    assert found["killed"] >= kills
    assert found["ends"] == {"schedule": "early_stopping", "plateau": "early_stopping"}
    assert len(set(found["reached"])) > 4  # they were killed in many places
    return found


def test_killed_at_twenty_random_times(tmp_path: Path) -> None:
    found = kill(tmp_path, 20)
    assert found["early"] < 15  # most had a checkpoint to go on from
