# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a call with its output, a process, a small table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotloop.cli import main

Captured = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """stdout as the one JSON document that it must be; NaN is no JSON."""
        assert self.out.count("\n") == 1 and self.out.endswith("\n")
        document: dict[str, Any] = json.loads(self.out, parse_constant=lambda text: pytest.fail(text))
        assert {"schema": 1, "exit_code": self.code}.items() <= document.items()
        assert ("result" in document) != ("error" in document)
        return document

    @property
    def result(self) -> dict[str, Any]:
        """The result in the document, of a command that succeeded."""
        assert self.code == 0, self.err
        result: dict[str, Any] = self.document["result"]
        return result


def call(capsys: Captured, *arguments: object) -> Done:
    """One command in this process."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Done(code, captured.out, captured.err)


def done(capsys: Captured, *arguments: object) -> str:
    """What a command that must succeed wrote to stdout."""
    ended = call(capsys, *arguments)
    assert ended.code == 0, ended.err
    return ended.out


def process(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """``python -m hotloop`` with pipes."""
    command = [sys.executable, "-m", "hotloop", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def write_blobs(path: Path, rows: int = 120) -> Path:
    """A CSV of two classes by name; the second of its three columns is constant. Text needs pyarrow."""
    pytest.importorskip("pyarrow")
    random = np.random.Generator(np.random.Philox(0))
    lines = ["size,unit,weight,kind"]
    for i in range(rows):
        kind = i % 2
        size, weight = random.normal(1000 + 300 * kind, 60), random.normal(0.01 - 0.004 * kind, 0.001)
        lines.append(f"{size},7,{weight},{'cat' if kind else 'ant'}")
    path.write_text("\n".join(lines))
    return path


def write_people(path: Path, rows: int = 240) -> Path:
    """A CSV as they come: text ids, missing numbers and text, spellings, dates; the class by name."""
    pytest.importorskip("pyarrow")
    random = np.random.Generator(np.random.Philox(1))
    lines = ["id,size,height,town,day,kind"]
    for i in range(rows):
        kind = int(random.integers(2))
        size = "" if i % 11 == 3 else f"{random.normal(1 + 2 * kind, 0.7):.3f}"
        height = "NA" if i % 17 == 5 else f"{random.normal(150 + 20 * kind, 8):.1f}"
        town = ("Rome", "Oslo", " rome", "", "Bonn")[int(random.integers(5))]
        lines.append(f"{i:05d},{size},{height},{town},2024-01-{1 + i % 28:02d},{('cat', 'dog')[kind]}")
    path.write_text("\n".join(lines))
    return path
