# SPDX-License-Identifier: Apache-2.0
"""What only the repository has: the folder of dated results, and the commit they were measured at.

The rest of the harness is in `hotloop.benchmarks.harness`, beside the code that an installed wheel runs too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotloop.benchmarks import harness
from hotloop.benchmarks.harness import Row, one_round, settle, table, timed

__all__ = ["RESULTS", "Row", "commit", "machine", "newest", "one_round", "save", "settle", "table", "timed"]

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(limits: Mapping[str, Any]) -> dict[str, Any]:
    """What a result was measured on, with the commit."""
    return {**harness.machine(limits), "commit": commit()}


def save(name: str, rows: Sequence[Row], stamp: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Writes ``<date>-<name>.json``; a second run of a day replaces the first."""
    result = harness.record(name, rows, stamp)
    path = folder / f"{result['date']}-{name}.json"
    harness.write(path, result)
    return path


def newest(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The latest stored result of that name, or None."""
    paths = sorted(folder.glob(f"????-??-??-{name}.json"))
    if not paths:
        return None
    data: dict[str, Any] = json.loads(paths[-1].read_text(encoding="utf-8"))
    return data
