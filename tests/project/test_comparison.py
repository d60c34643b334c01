# SPDX-License-Identifier: Apache-2.0
"""Every line of the feature table leads to a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "comparison.md"
MARKS = {"●", "◐", "○"}


def rows() -> list[list[str]]:
    """The cells of each line about a feature; headings have no marks."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if any(row[1:])]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_line_leads_to_a_test(row: list[str]) -> None:
    feature, *marks, proof = row
    assert len(marks) == 6 and set(marks) <= MARKS, feature
    found = re.fullmatch(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", proof)
    assert found, f"{feature}: {proof!r} is no link to a test"
    tree = ast.parse((ROOT / found[2]).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert found[1] in names, f"{found[2]} has no {found[1]}"


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(rows()) > 40
