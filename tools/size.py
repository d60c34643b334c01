# SPDX-License-Identifier: Apache-2.0
"""The line budget: no source file over the hard cap, no function over 60 lines, and a total per folder.

Small files are a design rule here, so they are counted. Python functions are measured with `ast`; C++ ones
are left to review. Exit status 1 if anything is over.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".cc", ".h", ".cu", ".cuh", ".def", ".cmake"}
FOLDERS = ("csrc", "python", "tests", "bench", "tools", "examples", "cmake")
SOFT_CAP, HARD_CAP, FUNCTION_CAP = 400, 600, 60


def sources(root: Path = ROOT) -> list[Path]:
    """Every source file that is written by hand."""
    found = [p for folder in FOLDERS for p in sorted((root / folder).rglob("*")) if p.suffix in SUFFIXES]
    return [p for p in found if p.is_file() and "__pycache__" not in p.parts]


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_functions(path: Path) -> list[str]:
    """`file:line name (length)` of every Python function over the cap, its docstring not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
        if length > FUNCTION_CAP:
            found.append(f"{path}:{node.lineno} {node.name} ({length} lines)")
    return found


def main() -> int:
    totals: Counter[str] = Counter()
    failures: list[str] = []
    notes: list[str] = []
    for path in sources():
        lines = line_count(path)
        name = path.relative_to(ROOT)
        totals[name.parts[0]] += lines
        if lines > HARD_CAP:
            failures.append(f"{name}: {lines} lines, allowed {HARD_CAP}; split it")
        elif lines > SOFT_CAP:
            notes.append(f"{name}: {lines} lines, above the soft cap of {SOFT_CAP}")
        if path.suffix == ".py":
            failures += [f"{f}; allowed {FUNCTION_CAP}" for f in long_functions(path)]
    for folder, lines in sorted(totals.items()):
        print(f"{folder:10} {lines:7}")
    print(f"{'total':10} {totals.total():7}")
    print("\n".join(notes + failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
