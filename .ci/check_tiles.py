# SPDX-License-Identifier: Apache-2.0
"""The register tiles of the matrix product stay in registers: no loop with a multiplication touches the stack.

python .ci/check_tiles.py matmul_cpu.cc.o ...      (objects of the units with vector registers)
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field

FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.*)>:$")
LINE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\s+(?P<text>.*)$")
JUMP = re.compile(r"^j\w+\s+(?P<target>[0-9a-f]+)\b")
FRAME = "mov    %rsp,%rbp"  # else rbp is a register like any other


@dataclass
class Function:
    name: str
    lines: list[tuple[int, str]] = field(default_factory=list)

    def loops(self) -> list[list[str]]:
        """The innermost loops: from the target of a backward jump to the jump, no other inside."""
        spans = []
        for address, text in self.lines:
            jump = JUMP.match(text)
            if jump and (target := int(jump["target"], 16)) <= address:
                spans.append((target, address))
        inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
        return [[text for at, text in self.lines if first <= at <= last] for first, last in inner]

    def spills(self) -> list[str]:
        has_frame = any(text.startswith(FRAME) for _, text in self.lines)
        stack = re.compile(r"\(%r[sb]p" if has_frame else r"\(%rsp")
        loops = [loop for loop in self.loops() if any("vfmadd" in text for text in loop)]
        assert loops, f"{self.name}: no loop multiplies"
        return [text for loop in loops for text in loop if stack.search(text)]


def tiles(path: str) -> list[Function]:
    listing = subprocess.run(
        ["objdump", "-dC", "--no-show-raw-insn", path], check=True, capture_output=True, text=True
    ).stdout
    functions: list[Function] = []
    for line in listing.splitlines():
        if start := FUNCTION.match(line):
            functions.append(Function(start["name"]))
        elif functions and (instruction := LINE.match(line)):
            functions[-1].lines.append((int(instruction["address"], 16), instruction["text"]))
    return [function for function in functions if "run_tile<" in function.name]


def main() -> None:
    for path in sys.argv[1:]:
        found = tiles(path)
        assert len(found) > 10, f"{path}: only {len(found)} tiles"
        bad = {tile.name: spills for tile in found if (spills := tile.spills())}
        assert not bad, f"{path}: spilled in the loop over k: {bad}"
        print(f"{path}: {len(found)} tiles without a spill")


if __name__ == "__main__":
    main()
