# SPDX-License-Identifier: Apache-2.0
"""Writes the comparison table of README.md from the newest stored result; no number there is typed by hand.

python -m bench.readme_table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench._harness import newest

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- bench:train -->", "<!-- /bench:train -->"
NO_RESULT = "No result is stored yet: `pytest bench/train.py --save` measures one."


def markdown(result: dict[str, Any] | None) -> str:
    """The table between the marks: one line per contestant, one column per problem."""
    if result is None:
        return NO_RESULT
    settings = list(dict.fromkeys(row["setting"] for row in result["rows"]))
    names = list(dict.fromkeys(row["contestant"] for row in result["rows"]))
    cell = {(row["contestant"], row["setting"]): row for row in result["rows"]}
    lines = ["| microseconds per step | " + " | ".join(settings) + " |", "|---|" + "--:|" * len(settings)]
    for name in names:
        ours = name == "hotloop"
        values = [f"{cell[name, s]['median'] * 1e6:.1f}" if (name, s) in cell else "" for s in settings]
        lines.append("| " + " | ".join(f"**{v}**" if ours and v else v for v in [name, *values]) + " |")
    machine = result["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    lines.append("")
    lines.append(
        f"Medians of alternating rounds, {result['date']}, {machine['cores']} cores of {machine['cpu']} at "
        f"{machine['fma_gflops']:.0f} GFLOP/s a core; {versions}; "
        f"source: `bench/results/{result['date']}-{result['name']}.json`."
    )
    return "\n".join(lines)


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
