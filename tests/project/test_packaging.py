# SPDX-License-Identifier: Apache-2.0
"""What users see before the first import: metadata, the README's commands and table, links, line budget."""

from __future__ import annotations

import ast
import re
import runpy
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import hotloop
from bench import readme_table
from bench._harness import newest
from hotloop import _core

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"])
EXTRAS = {
    "sklearn", "tensorboard", "torch", "cli", "plot", "data", "image", "audio", "onnx", "test", "bench", "dev",
}  # fmt: skip


def readme_block(name: str) -> str:
    found = re.search(rf"<!-- ci:{name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block ci:{name}"
    return found.group(1)


def test_one_version_everywhere() -> None:
    assert hotloop.__version__ == _core.__version__ == metadata.version("hotloop")


def test_run_time_needs_numpy_and_safetensors_only() -> None:
    required = {r for r in metadata.requires("hotloop") or [] if "extra ==" not in r}
    assert {re.split(r"[<>=!~ ;\[]", r)[0] for r in required} == {"numpy", "safetensors"}
    assert set(metadata.metadata("hotloop").get_all("Provides-Extra") or ()) == EXTRAS


def test_command_is_installed() -> None:
    (entry,) = [e for e in metadata.entry_points(group="console_scripts") if e.name == "hotloop"]
    assert callable(entry.load())


@pytest.mark.parametrize("name", ["train", "test"])
def test_readme_commands_are_one_line(name: str) -> None:
    (line,) = readme_block(name).splitlines()
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install '.[")


def test_readme_example_is_python() -> None:
    tree = ast.parse(readme_block("example"))
    assert any(isinstance(node, ast.Attribute) and node.attr == "fit" for node in ast.walk(tree))


def test_readme_table_is_what_the_script_writes() -> None:
    assert readme_table.fill(README, newest("train")) == README


def test_readme_table_from_a_result(tmp_path: Path) -> None:
    rows = [
        {"setting": "a", "contestant": "hotloop", "best": 1e-6, "extra": {"floor_s": 5e-7}},
        {"setting": "a", "contestant": "JAX scan", "best": 2.5e-6, "extra": {}},
        {"setting": "b", "contestant": "hotloop", "best": 3e-6, "extra": {"floor_s": 2e-6}},
    ]
    machine = {"cores": 2, "cpu": "c", "isa": "i", "fma_gflops": {"1": 50.0}, "versions": {"jax": "1"}}
    result: dict[str, Any] = {"name": "train", "date": "2026-01-01", "machine": machine, "rows": rows}
    text = readme_table.markdown(result, tmp_path)
    assert "| a | **1.0** |  | 2.5 (2.5x) |  | 0.5 (2.00x) |" in text
    assert "| b | **3.0** |  |  |  | 2.0 (1.50x) |" in text
    assert "`bench/results/2026-01-01-train.json`" in text and "![" not in text
    chart = tmp_path / "bench" / "results" / "2026-01-01-train.svg"
    chart.parent.mkdir(parents=True)
    chart.touch()
    assert "(bench/results/2026-01-01-train.svg)" in readme_table.markdown(result, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:tests|docs|bench|csrc|python|tools|\.ci)/[\w./]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_line_budget() -> None:
    size = runpy.run_path(str(ROOT / "tools" / "size.py"))
    over = [p for p in size["sources"]() if size["line_count"](p) > size["HARD_CAP"]]
    assert over == []
