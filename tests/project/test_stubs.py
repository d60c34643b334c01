# SPDX-License-Identifier: Apache-2.0
"""The committed stub names exactly what the extension has. (.ci/run stubs compares the text as well.)"""

from __future__ import annotations

import ast
from pathlib import Path

from hotloop import _core

STUB = Path(__file__).resolve().parents[2] / "python" / "hotloop" / "_core.pyi"
GENERATED = {"__all__"}


def names_of(body: list[ast.stmt]) -> set[str]:
    """Functions, classes and annotated values that a stub declares at one level."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def public(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_names_what_the_extension_has() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    assert public(names_of(tree.body)) == public(set(vars(_core)))


def test_the_stub_names_every_member_of_every_class() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(classes) >= 5
    for node in classes:
        assert public(names_of(node.body)) == public(set(vars(getattr(_core, node.name)))), node.name
