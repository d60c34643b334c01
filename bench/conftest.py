# SPDX-License-Identifier: Apache-2.0
"""The machine's limits, measured once a run; rows collected for the table at the end; --save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import pytest

from bench._harness import Row, machine, save, table
from hotloop import _core

ROWS = pytest.StashKey[dict[str, list[Row]]]()
LIMITS = pytest.StashKey["Limits"]()


@dataclass(frozen=True)
class Limits:
    """``fma_gflops``: multiply-adds of one core as 2 operations; ``stream_gbs``: main memory, one thread."""

    fma_gflops: float
    stream_gbs: float


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save", action="store_true", help="write bench/results/<date>-<file>.json")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}


@pytest.fixture(scope="session")
def limits(pytestconfig: pytest.Config) -> Limits:
    found = Limits(_core.fma_peak_gflops(isa="", seconds=0.2), _core.stream_gbs())
    pytestconfig.stash[LIMITS] = found
    return found


@pytest.fixture
def add_row(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    return request.config.stash[ROWS].setdefault(request.path.stem, []).append


def lines(rows: list[Row]) -> list[list[str]]:
    """Setting, contestant, microseconds, spread, and how many times the first contestant's own time."""
    base = {row.setting: row.median for row in rows if row.contestant == "hotloop"}
    found = []
    for row in rows:
        ratio = f"{row.median / base[row.setting]:.2f}" if row.setting in base else ""
        spread = "" if row.spread != row.spread else f"{100 * row.spread:.0f} %"
        extra = ", ".join(f"{k} {v}" for k, v in row.extra.items())
        found.append([row.setting, row.contestant, f"{row.median * 1e6:.1f}", spread, ratio, extra])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, rows in config.stash[ROWS].items():
        terminalreporter.section(f"bench: {name} (medians of alternating rounds)")
        header = ["setting", "contestant", "us", "spread", "x hotloop", "notes"]
        terminalreporter.write_line(table(header, lines(rows)))
        limits = config.stash.get(LIMITS, None)
        stamp = machine(asdict(limits) if limits else {})
        terminalreporter.write_line(", ".join(f"{key}: {value}" for key, value in stamp.items()))
        if config.getoption("--save"):
            terminalreporter.write_line(f"saved {save(name, rows, stamp)}")
