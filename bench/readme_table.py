# SPDX-License-Identifier: Apache-2.0
"""Writes the comparison table of README.md from the newest stored result; no number there is typed by hand.

python -m bench.readme_table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench._harness import newest
from hotloop.benchmarks import training_report

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- bench:train -->", "<!-- /bench:train -->"
NO_RESULT = "No result is stored yet: `pytest bench/train.py --save` measures one."


def markdown(result: dict[str, Any] | None, root: Path = ROOT) -> str:
    """The table between the marks, and the chart under it if there is one."""
    if result is None:
        return NO_RESULT
    chart = f"bench/results/{result['date']}-{result['name']}.svg"
    picture = "Microseconds of one training step by network and library"
    below = f"\n\n![{picture}]({chart})" if (root / chart).exists() else ""
    return training_report.markdown(result) + below


def fill(readme: str, result: dict[str, Any] | None) -> str:
    """README's text with the part between the marks replaced."""
    before, rest = readme.split(BEGIN + "\n")
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown(result)}\n{END}{after}"


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(fill(path.read_text(encoding="utf-8"), newest("train")), encoding="utf-8")


if __name__ == "__main__":
    main()
