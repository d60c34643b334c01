# SPDX-License-Identifier: Apache-2.0
"""How things are timed here: warm up, alternate the contestants, take medians, stamp the machine.

Contestants run in turn within every round, so that a busy spell of the machine falls on all of them; the
median forgets it. A result is plain data: it goes into the table at the end and, on request (--save), into
a dated JSON file.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Before each timing: OpenMP's and OpenBLAS's idle threads spin for some milliseconds after their last work,
#: on a core that the next contestant may want.
PAUSE_S = 0.1


@dataclass(frozen=True)
class Row:
    """One contestant in one setting. ``seconds``: one per round, each of one unit of work."""

    setting: str
    contestant: str
    seconds: tuple[float, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        if len(self.seconds) < 4:
            return float("nan")
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / 2 / self.median


def settle() -> None:
    """Lets the threads of whoever ran last go to sleep."""
    time.sleep(PAUSE_S)


def timed(work: Callable[[], object]) -> float:
    settle()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_round(contestants: Mapping[str, Callable[[], object]], times: dict[str, list[float]]) -> None:
    """Runs every contestant once and appends its time."""
    for name, work in contestants.items():
        times.setdefault(name, []).append(timed(work))


def versions(names: Sequence[str] = ("hotloop", "numpy", "torch", "scikit-learn")) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def commit() -> str:
    root = Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(limits: Mapping[str, float]) -> dict[str, Any]:
    """What a result was measured on; ``limits``: the machine's own, measured in the same run."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
        "load_average": os.getloadavg()[0],
        **limits,
    }


def save(name: str, rows: Sequence[Row], stamp: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Writes ``<date>-<name>.json``; a second run of a day replaces the first."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{today}-{name}.json"
    data = {
        "name": name,
        "date": today,
        "machine": dict(stamp),
        "rows": [{**asdict(row), "median": row.median, "spread": row.spread} for row in rows],
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path


def newest(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """The latest stored result of that name, or None."""
    paths = sorted(folder.glob(f"????-??-??-{name}.json"))
    if not paths:
        return None
    data: dict[str, Any] = json.loads(paths[-1].read_text(encoding="utf-8"))
    return data


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need, the first to the left and the others to the right."""
    cells = [list(header), *map(list, lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
