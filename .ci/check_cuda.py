# SPDX-License-Identifier: Apache-2.0
"""What the machine code of the CUDA kernels must be: no registers in memory, no stray doubles, wide accesses and
matrix instructions where they are meant, few enough registers for the blocks that are to run side by side.

    python .ci/check_cuda.py FOLDER [--list]     (FOLDER: object files; cuobjdump and nvdisasm are on PATH)

Read from the disassembly and the resources that the objects record. Nothing found is a failure, too: cuobjdump
prints nothing and ends well where it cannot read a file, and a rule whose kernels are gone guards nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cuda_rules import DOUBLES, RULES, SPILLS, Rule

#: Of a multiprocessor: shared bytes and threads, by architecture (CUDA programming guide, compute capabilities).
LIMITS = {75: (64, 1024), 80: (164, 2048), 86: (100, 1536), 90: (228, 2048), 120: (100, 1536)}
REGISTERS = 65536  # of a multiprocessor; a warp takes them by 256
RESERVED_SHARED = {
    80: 1024,
    86: 1024,
}  # of each block, by the system; from sm_90 on the objects' numbers hold it
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
#: Arithmetic in double precision; a conversion or comparison of a scalar of the step is none.
DOUBLE = re.compile(r"^D(ADD|MUL|FMA)\b|64H\b")


@dataclass
class Code:
    """A kernel's machine code for one architecture."""

    name: str
    arch: int
    registers: int = 0
    stack: int = 0
    local: int = 0
    shared: int = 0
    threads: int = 0  # of its launch bounds; 0 without
    opcodes: Counter[str] = field(default_factory=Counter)

    def count(self, opcode: str) -> int:
        """Instructions whose name holds these parts, in order: "LDG.128" is LDG.E.128 as well."""
        pattern = re.compile(r"^" + r"\b.*\.".join(re.escape(part) for part in opcode.split(".")) + r"\b")
        return sum(n for found, n in self.opcodes.items() if pattern.search(found))

    @property
    def doubles(self) -> int:
        return sum(n for found, n in self.opcodes.items() if DOUBLE.search(found))

    def blocks(self, dynamic_shared: int, threads: int) -> int:
        """How many blocks run on a multiprocessor at once."""
        shared_kb, most_threads = LIMITS[self.arch]
        warps = -(-threads // 32)
        of_a_warp = -(-self.registers // 8) * 256
        found = [most_threads // threads, REGISTERS // (of_a_warp * warps)]
        shared = self.shared + dynamic_shared
        if shared:
            found.append(shared_kb * 1024 // (shared + RESERVED_SHARED.get(self.arch, 0)))
        return min(found)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sections(text: str) -> Iterator[tuple[int, str]]:
    """(architecture, text) of each piece of machine code in cuobjdump's output."""
    for piece in text.split("Fatbin elf code:")[1:]:
        arch = re.search(r"arch = sm_(\d+)", piece)
        assert arch, "cuobjdump writes in another form than it used to"
        yield int(arch[1]), piece


def read(path: Path) -> dict[tuple[str, int], Code]:
    """All kernels of an object file by mangled name and architecture."""
    found: dict[tuple[str, int], Code] = {}
    for arch, text in sections(run("cuobjdump", "-sass", str(path))):
        for part in text.split("Function : ")[1:]:
            name = part.split(None, 1)[0]
            found[name, arch] = Code(name, arch, opcodes=Counter(INSTRUCTION.findall(part)))
    usage = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
    for arch, text in sections(run("cuobjdump", "-res-usage", str(path))):
        for name, *numbers in usage.findall(text):
            if (name, arch) in found:  # functions of the compiler's own library are listed, too
                code = found[name, arch]
                code.registers, code.stack, code.shared, code.local = map(int, numbers)
    bounds = re.compile(
        r"^\.nv\.info\.(\S+)\n((?:\t.*\n|\n(?!\.))*?)\tAttribute:\tEIATTR_MAX_THREADS\n.*\n\tValue:\t0x(\w+)",
        re.M,
    )
    for arch, text in sections(run("cuobjdump", "-elf", str(path))):
        for name, _, threads in bounds.findall(text):
            found[name, arch].threads = int(threads, 16)
    return found


def demangled(names: list[str]) -> dict[str, str]:
    """Readable names without namespaces, arguments and the compiler's marks."""
    text = subprocess.run(
        ["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True
    ).stdout
    short = {}
    for name, line in zip(names, text.splitlines(), strict=True):
        line = re.sub(
            r"\(anonymous namespace\)::|hotloop::cuda::|hotloop::|_GLOBAL__N__\w+::|^void ", "", line
        )
        short[name] = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)( \[clone.*)?$", "", line)
    return short


def faults(code: Code, rules: list[Rule]) -> Iterator[str]:
    spills = code.count("LDL") + code.count("STL")
    if not SPILLS.search(code.name) and (spills or code.local or code.stack):
        yield f"keeps values in memory: {spills} LDL/STL, {code.stack} bytes of stack"
    if code.doubles and not DOUBLES.search(code.name):
        yield f"computes with doubles: {code.doubles} instructions"
    for rule in rules:
        yield from (f"holds no {opcode}" for opcode in rule.must if not code.count(opcode))
        yield from (f"holds {opcode}" for opcode in rule.must_not if code.count(opcode))
        if rule.registers and code.registers > rule.registers:
            yield f"takes {code.registers} registers, allowed {rule.registers}"
        if rule.blocks:
            threads = rule.threads or code.threads
            if not threads:
                yield "has no launch bounds, and its rule says no number of threads"
            elif (n := code.blocks(rule.dynamic_shared, threads)) < rule.blocks:
                yield f"runs {n} blocks on a multiprocessor, meant {rule.blocks}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true", help="print every kernel")
    arguments = parser.parse_args()
    codes = [code for path in sorted(arguments.folder.glob("*.o")) for code in read(path).values()]
    assert codes, f"cuobjdump finds no machine code in {arguments.folder}"
    names = demangled([code.name for code in codes])
    bad, used = [], defaultdict(int)
    for code in codes:
        code.name = names[code.name]
        assert code.opcodes and code.registers, f"{code.name}: nothing was read of it"
        rules = [rule for rule in RULES if rule.speaks_of(code.name, code.arch)]
        for rule in rules:
            used[rule.pattern, code.arch] += 1
        if arguments.list:
            print(f"sm_{code.arch} {code.registers:3} registers {code.shared:6} shared {code.threads:4} threads "
                  f"{code.count('LDL') + code.count('STL'):3} local {code.doubles:3} doubles  {code.name}")  # fmt: skip
        bad += [f"sm_{code.arch} {code.name}: {fault}" for fault in faults(code, rules)]
    archs = sorted({code.arch for code in codes})
    bad += [
        f"sm_{arch}: no kernel is called {rule.pattern!r}; the rule guards nothing"
        for rule in RULES for arch in archs if rule.since <= arch and not used[rule.pattern, arch]
    ]  # fmt: skip
    print(f"{len(codes)} kernels' code for {', '.join(f'sm_{a}' for a in archs)}, {sum(used.values())} uses of "
          f"{len(RULES)} rules, most registers {max(code.registers for code in codes)}")  # fmt: skip
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
