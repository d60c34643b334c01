# SPDX-License-Identifier: Apache-2.0
"""The register tiles of the matrix product stay in registers: no loop with a multiplication touches the stack.

python .ci/check_tiles.py matmul_cpu.cc.o ...      (objects of the units with vector registers, x86-64 or ARM)
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """How the listings of one processor family read. ``frame``: what makes the frame register one."""

    name: str
    jump: re.Pattern[str]
    multiply: str
    frame: str
    stack: re.Pattern[str]
    stack_or_frame: re.Pattern[str]

    @property
    def objdump(self) -> str:
        return "objdump" if platform.machine() == self.name else f"{self.name}-linux-gnu-objdump"


#: By e_machine of the ELF header.
MACHINES = {
    62: Machine(
        "x86_64",
        jump=re.compile(r"^j\w+\s+(?P<target>[0-9a-f]+)\b"),
        multiply="vfmadd",
        frame="mov    %rsp,%rbp",
        stack=re.compile(r"\(%rsp"),
        stack_or_frame=re.compile(r"\(%r[sb]p"),
    ),
    183: Machine(
        "aarch64",
        jump=re.compile(r"^(?:b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\w+,)\s+(?P<target>[0-9a-f]+)\b"),
        multiply="fmla",
        frame="mov\tx29, sp",
        stack=re.compile(r"\[sp"),
        stack_or_frame=re.compile(r"\[(?:sp|x29)"),
    ),
}
FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.*)>:$")
LINE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\s+(?P<text>.*)$")


@dataclass
class Function:
    name: str
    machine: Machine
    lines: list[tuple[int, str]] = field(default_factory=list)

    def loops(self) -> list[list[str]]:
        """The innermost loops: from the target of a backward jump to the jump, no other inside."""
        spans = []
        for address, text in self.lines:
            jump = self.machine.jump.match(text)
            if jump and (target := int(jump["target"], 16)) <= address:
                spans.append((target, address))
        inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
        return [[text for at, text in self.lines if first <= at <= last] for first, last in inner]

    def spills(self) -> list[str]:
        has_frame = any(text.startswith(self.machine.frame) for _, text in self.lines)
        stack = self.machine.stack_or_frame if has_frame else self.machine.stack
        loops = [loop for loop in self.loops() if any(self.machine.multiply in text for text in loop)]
        assert loops, f"{self.name}: no loop multiplies"
        return [text for loop in loops for text in loop if stack.search(text)]


def machine_of(path: str) -> Machine:
    return MACHINES[int.from_bytes(Path(path).read_bytes()[18:20], "little")]


def tiles(path: str) -> list[Function]:
    machine = machine_of(path)
    command = [machine.objdump, "-dC", "--no-show-raw-insn", path]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions: list[Function] = []
    for line in listing.splitlines():
        if start := FUNCTION.match(line):
            functions.append(Function(start["name"], machine))
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
