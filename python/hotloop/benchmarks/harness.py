# SPDX-License-Identifier: Apache-2.0
"""What every benchmark here shares: rows of timings, the machine's limits, its stamp, tables, JSON.

A result is plain data. A row keeps every round, so that best, median and spread can be read off later; the
best says what the code can do, the median and the spread how quiet the machine was.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from hotloop import _core

#: Before each timing within one process: OpenMP's and OpenBLAS's idle threads spin for some milliseconds
#: after their last work, on a core that the next contestant may want.
PAUSE_S = 0.1
LIBRARIES = ("numpy", "torch", "jax", "scikit-learn")


@dataclass(frozen=True)
class Row:
    """One contestant in one setting. ``seconds``: one per round, each of one unit of work."""

    setting: str
    contestant: str
    seconds: tuple[float, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float | None:
        """Half the distance between the quartiles, relative to the median; None below four rounds."""
        if len(self.seconds) < 4:
            return None
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return (third - first) / 2 / self.median


@dataclass(frozen=True)
class Limits:
    """``fma_gflops``: multiply-adds of one core as 2 operations; ``stream_gbs``: main memory, one thread."""

    fma_gflops: float
    stream_gbs: float


def measure_limits() -> Limits:
    """The default kernels' peak on one core and the rate of main memory, in about half a second."""
    return Limits(_core.fma_peak_gflops(seconds=0.2), _core.stream_gbs())


def fma_peak(threads: int, seconds: float = 0.2) -> float:
    """GFLOP/s of that many threads at once, in the kernels in use: cores share heat, power and siblings."""
    if threads == 1:
        return _core.fma_peak_gflops(seconds=seconds)
    with ThreadPoolExecutor(threads) as pool:  # the probe works with the GIL released
        return sum(pool.map(lambda _: _core.fma_peak_gflops(seconds=seconds), range(threads)))


def settle() -> None:
    """Lets the threads of whoever ran last go to sleep."""
    time.sleep(PAUSE_S)


def timed(work: Callable[[], object]) -> float:
    settle()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def busy(processor: int) -> Iterator[None]:
    """Another process computes on that processor all the while."""
    program = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    spinner = subprocess.Popen([sys.executable, "-c", program])
    try:
        time.sleep(0.3)  # until it runs
        yield
    finally:
        spinner.kill()
        spinner.wait()


def one_round(contestants: Mapping[str, Callable[[], object]], times: dict[str, list[float]]) -> None:
    """Runs every contestant once and appends its time."""
    for name, work in contestants.items():
        times.setdefault(name, []).append(timed(work))


def versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """hotloop's own, and those of the distributions that are installed."""
    found = {"hotloop": str(_core.__version__)}
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


def machine(limits: Mapping[str, Any]) -> dict[str, Any]:
    """What a result was measured on; ``limits``: the machine's own, measured in the same run."""
    return {
        "cpu": cpu_model(),
        "cores": _core.cpu_count(),
        "isa": _core.best_isa(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "load_average": os.getloadavg()[0],
        **limits,
    }


def record(name: str, rows: Sequence[Row], stamp: Mapping[str, Any]) -> dict[str, Any]:
    """A result as plain data."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    found = [{**asdict(row), "best": row.best, "median": row.median, "spread": row.spread} for row in rows]
    return {"name": name, "date": today, "machine": dict(stamp), "rows": found}


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need, the first to the left and the others to the right.

    >>> print(table(["kernel", "us"], [["copy", "12.5"]]))
    kernel    us
    copy    12.5
    """
    cells = [list(header), *map(list, lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
