# SPDX-License-Identifier: Apache-2.0
"""Rows collected for the tables at the end, the machine's limits measured once a run, and --save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from bench._harness import RESULTS, Row, commit, save
from hotloop.benchmarks import harness, kernels, training_report
from hotloop.benchmarks.commands import save_result
from hotloop.benchmarks.harness import Limits

KEPT = pytest.StashKey[dict[str, "Kept"]]()


@dataclass
class Kept:
    """The rows of one file, and what the machine can do."""

    rows: list[Row] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save", action="store_true", help="write bench/results/<date>-<file>.json")
    parser.addoption("--quick", action="store_true", help="bench/train.py: three short rounds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[KEPT] = {}


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest) -> Kept:
    return request.config.stash[KEPT].setdefault(request.path.stem, Kept())


@pytest.fixture(scope="module")
def limits(kept: Kept) -> Limits:
    found = harness.measure_limits()
    kept.limits = asdict(found)
    return found


def report(name: str, result: dict[str, Any], rows: list[Row]) -> str:
    if name == "kernels":
        return kernels.report(rows)
    plain = result["rows"]
    parts = [training_report.details(plain, setting) for setting in training_report.settings(plain)]
    return "\n\n".join([*parts, training_report.summary(plain), training_report.orientation(plain)])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, found in config.stash[KEPT].items():
        stamp = {**harness.machine(found.limits), "commit": commit()}
        result = harness.record(name, found.rows, stamp)
        write: Callable[[str], None] = terminalreporter.write_line
        terminalreporter.section(f"bench: {name}")
        write(report(name, result, found.rows))
        write(", ".join(f"{key}: {value}" for key, value in stamp.items()))
        if config.getoption("--save"):
            if name == "train":
                paths = save_result(result, RESULTS / f"{result['date']}-train.json")
                write(f"saved {', '.join(map(str, paths))}")
            else:
                write(f"saved {save(name, found.rows, stamp)}")
