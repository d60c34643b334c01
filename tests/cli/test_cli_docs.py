# SPDX-License-Identifier: Apache-2.0
"""docs/command_line.md: its commands run in order in one folder, and print what the page says ("..." is anything)."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hotloop.cli import main

pytest.importorskip("cyclopts")
pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^(?:<!-- needs: (\w+) -->\n)?```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the table, and the command beside it."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(ROOT / "examples" / "data" / "penguins.csv", folder)
    command = folder / "bin" / "hotloop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hotloop "$@"\n')
    command.chmod(0o755)
    return folder


def examples() -> list[tuple[str, str, str]]:
    """Each command of the page with its output, and what it needs to be installed."""
    found = []
    for needs, block in BLOCK.findall(PAGE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output, needs))
    return found


def output(command: str, folder: Path) -> str:
    """What a command writes to stdout and stderr together; a plain one runs in this process, which is faster."""
    if command.startswith("hotloop ") and not set(command) & set("|;>"):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            assert main(shlex.split(command)[1:]) == 0
        return text.getvalue()
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip


def test_the_page_is_true(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")
    checker = doctest.OutputChecker()
    for command, expected, needs in examples():
        if needs and find_spec(needs) is None:
            continue
        found = output(command, folder)
        expected = expected.replace("\n\n", "\n<BLANKLINE>\n")
        assert checker.check_output(expected, found, LIKE), f"$ {command}\n{found}\nexpected:\n{expected}"


def test_every_command_has_an_example() -> None:
    commands = " ".join(command for command, _, _ in examples())
    for name in ("train", "evaluate", "predict", "export", "check", "info"):
        assert f"hotloop {name} " in commands, name
    assert len(examples()) >= 15
