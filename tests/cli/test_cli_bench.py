# SPDX-License-Identifier: Apache-2.0
"""``hotloop bench`` for machines and from a file; what it measures is tested in test_benchmarks.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Captured, call, done

pytest.importorskip("cyclopts")


def test_the_document_is_what_is_saved(tmp_path: Path, capsys: Captured) -> None:
    config, saved = tmp_path / "run.toml", tmp_path / "rounds.json"
    config.write_text(
        '[bench.train]\nquick = true\npeers = "none"\nnetworks = "10-32-32-10"\nthreads = "1"\n'
    )
    ended = call(capsys, "bench", "train", "--config", config, "--save", saved, "--json")
    assert ended.document["command"] == "bench train"
    assert ended.result == json.loads(saved.read_text())
    assert {row["contestant"] for row in ended.result["rows"]} == {"hotloop"}
    assert "10-32-32-10" in ended.err  # the text goes on beside it


def test_a_key_of_the_group_is_refused(tmp_path: Path, capsys: Captured) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[bench.train]\nquik = true\n")
    ended = call(capsys, "bench", "train", "--config", config)
    assert ended.code == 2
    assert "table [bench.train]: unknown key 'quik'; did you mean 'quick'?" in ended.err


def test_help_of_the_group(capsys: Captured) -> None:
    out = done(capsys, "bench", "--help")
    assert "train" in out and "kernels" in out
    assert "--save" in done(capsys, "bench", "kernels", "--help")
