# SPDX-License-Identifier: Apache-2.0
"""The Python on the pages of docs/ runs: all blocks of a page in order, in one namespace and an empty folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text(encoding="utf-8")))


#: What a page needs beside the libraries that it imports: by what its code says.
NEEDS = {"callbacks.TensorBoard": "tensorboardX", "export_onnx": "onnx", "hl.MLP": "sklearn"}


def needed(code: str) -> list[str]:
    """The libraries without which a page's code cannot run here."""
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - {"hotloop", "numpy"}
    return sorted(imported - sys.stdlib_module_names | {lib for use, lib in NEEDS.items() if use in code})


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for library in needed("\n".join(BLOCK.findall(text))):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, Any] = {"__name__": "docs"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(
            compile("\n" * line + block[1], str(DOCS / page), "exec"), names
        )  # errors point at the page's line


def test_there_are_such_pages_and_their_links_lead_somewhere() -> None:
    assert {"callbacks.md", "checkpoints.md"} <= set(PAGES)
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", text):
            linked = page.parent / target
            assert linked.exists(), f"{page.name}: {target}"
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }
            assert not anchor or anchor in slugs, f"{page.name}: {target}#{anchor}"
