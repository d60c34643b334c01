# SPDX-License-Identifier: Apache-2.0
"""One list of kernels: whatever else names kernels or element-wise functions must agree with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hotloop import _core
from hotloop.reference import REFERENCES
from hotloop.rules.elementwise import UNARY
from hotloop.rules.registry import RULES
from tests.cases import CASES

ROOT = Path(__file__).resolve().parents[2]
KERNELS = set(_core.kernels())
LISTS = ROOT / "csrc" / "kernels"


def entries(name: str) -> list[list[str]]:
    """The lines of a .def file: the arguments of each HOTLOOP_...(...)."""
    text = re.sub(r"//.*", "", (LISTS / name).read_text(encoding="utf-8"))
    return [re.split(r",\s*", m) for m in re.findall(r"^HOTLOOP_\w+\(([^()]*)\)", text, re.MULTILINE)]


def test_every_kernel_has_a_reference() -> None:
    assert set(REFERENCES) == KERNELS


def test_every_kernel_has_cases() -> None:
    assert {case.kernel for case in CASES} == KERNELS


def test_cases_have_names_of_their_own() -> None:
    labels = [(case.kernel, case.label) for case in CASES]
    assert len(labels) == len(set(labels))


def test_every_kernel_is_benchmarked() -> None:
    from hotloop.benchmarks.kernel_settings import SETTINGS

    assert set(SETTINGS) == KERNELS


def test_the_list_is_what_the_extension_holds() -> None:
    unary = [line[0] for line in entries("unary.def")]
    names = {line[0] for line in entries("kernels.def")}
    names |= {f"{name}{suffix}" for name in unary for suffix in ("_fwd", "_bwd")}
    names |= {line[0] for file in ("binary.def", "loss.def") for line in entries(file)}
    assert names == KERNELS


def test_element_wise_functions_are_the_ops_table() -> None:
    lines = entries("unary.def")
    assert [line[0] for line in lines] == list(UNARY)
    assert [_core.activation_index(line[0]) for line in lines] == list(range(len(lines)))
    assert {line[0]: line[2].lower() for line in lines} == {
        name: str(row[0]).lower() for name, row in UNARY.items()
    }
    assert _core.activation_index("no_such_function") == -1


def test_every_element_wise_function_is_an_op_with_a_gradient() -> None:
    for name in (*UNARY, *(line[0] for line in entries("binary.def"))):
        assert RULES[name].grad is not None, name


def emitted_names() -> set[str]:
    """The kernels that sources pass to `.step(...)` by a literal name."""
    found: set[str] = set()
    for path in (ROOT / "python" / "hotloop").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "step"
            ):
                names = [c for a in node.args[:1] if not isinstance(a, ast.JoinedStr) for c in ast.walk(a)]
                found |= {c.value for c in names if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    return found


def families() -> set[str]:
    """The kernels that one lowering serves for a whole table of ops, so that no source spells them."""
    directions = {
        f"{name}{suffix}" for name in (*UNARY, "softmax", "log_softmax") for suffix in ("_fwd", "_bwd")
    }
    losses = {line[0] for line in entries("loss.def")} | {"cross_entropy"}
    return directions | losses | {line[0] for line in entries("binary.def")}


#: Kernels that functions of arrays run and plans do not.
EAGER = {"layer_norm_both_bwd"}


def launched_names() -> set[str]:
    """The kernels that `hotloop.ops` and `hotloop.torch` run by a literal name."""
    found: set[str] = set()
    for path in (*ROOT.glob("python/hotloop/ops/*.py"), *ROOT.glob("python/hotloop/torch/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("launch", "_run")
                and node.args
            ):
                name = node.args[0]
                found |= (
                    {name.value} if isinstance(name, ast.Constant) and isinstance(name.value, str) else set()
                )
    return found


def test_every_kernel_is_emitted_by_some_lowering_or_run_on_arrays_alone() -> None:
    assert emitted_names() | families() == KERNELS - EAGER
    assert launched_names() >= EAGER
