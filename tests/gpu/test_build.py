# SPDX-License-Identifier: Apache-2.0
"""The tools around the CUDA part: reading machine code and its rules, and running parts that may hang or die."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SASS = """
Fatbin elf code:
================
arch = sm_80

	code for sm_80
		Function : _ZN7hotloop4cuda3mulEv
	.headerflags	@"EF_CUDA_SM80"
        /*0000*/                   LDC R1, c[0x0][0x28] ;           /* 0x00000a00ff017b82 */
                                                                     /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ; /* 0x0000000002047981 */
        /*0020*/                   HMMA.16816.F32.BF16 R4, R2, R3, R4 ;
        /*0030*/                   F2F.F32.F64 R6, R6 ;
        /*0040*/             @UP0  DADD R6, R6, R8 ;
"""


def load(path: str) -> ModuleType:
    """A script as a module; scripts lie beside what they import."""
    file = ROOT / path
    sys.path.insert(0, str(file.parent))
    try:
        spec = util.spec_from_file_location(f"loaded_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


needs_ci = pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="only the repository has .ci")


@needs_ci
def test_instructions_are_counted_by_parts_of_their_names() -> None:
    check = load(".ci/check_cuda.py")
    ((arch, text),) = check.sections(SASS)
    assert arch == 80
    code = check.Code("mul", 80, opcodes=check.Counter(check.INSTRUCTION.findall(text)))
    assert sum(code.opcodes.values()) == 5
    assert [code.count(name) for name in ("LDG", "LDG.128", "HMMA", "STG", "LDL", "LDG.64")] == [
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    assert code.doubles == 1  # the sum; a conversion of a step's scalar is none


@needs_ci
def test_faults_of_machine_code_are_named() -> None:
    check = load(".ci/check_cuda.py")
    rule = check.Rule("mul", must=("LDSM",), must_not=("HMMA",), registers=64, blocks=4)
    code = check.Code("mul", 80, registers=96, stack=8, shared=50_000, threads=256,
                      opcodes=check.Counter({"HMMA.16816": 3, "STL.64": 2}))  # fmt: skip
    found = "; ".join(check.faults(code, [rule]))
    for words in ("2 LDL/STL, 8 bytes of stack", "holds no LDSM", "holds HMMA", "takes 96 registers, allowed 64",
                  "runs 2 blocks on a multiprocessor, meant 4"):  # fmt: skip
        assert words in found
    assert not list(check.faults(check.Code("mul", 80, registers=32, opcodes=check.Counter({"FFMA": 1})), []))


@needs_ci
@pytest.mark.parametrize(
    ("arch", "registers", "shared", "threads", "blocks"),
    [
        (80, 32, 0, 256, 8),  # threads are the limit: 2048
        (75, 32, 0, 256, 4),  # 1024
        (80, 128, 0, 256, 2),  # 65536 registers
        (90, 64, 100_000, 128, 2),  # 228 KB
        (80, 65, 0, 1024, 0),  # registers come by 8: 72 of 1024 threads are too many
    ],
)
def test_blocks_of_a_multiprocessor(
    arch: int, registers: int, shared: int, threads: int, blocks: int
) -> None:
    check = load(".ci/check_cuda.py")
    assert check.Code("k", arch, registers=registers, shared=shared).blocks(0, threads) == blocks


def test_parts_that_hang_or_die_take_no_others_with_them(tmp_path: Path) -> None:
    gpu_check = load("tools/gpu_check.py")

    def part(name: str, code: str, limit_s: float = 30.0, needs: str = "") -> object:
        return gpu_check.Part(name, [sys.executable, "-c", code], limit_s, needs)

    begin = time.monotonic()
    outcomes = gpu_check.run_all(
        [
            part("hangs", "import time; print('begun', flush=True); time.sleep(600)", limit_s=2.0),
            part("dies", "import os; print('last words', flush=True); os.abort()"),
            part("waits", "print('never')", needs="dies"),
            gpu_check.Part("missing", ["/nowhere/compute-sanitizer"], 1.0),
            part("works", "print('first'); print('fine')"),
        ],
        os.environ, tmp_path, tmp_path / "results",
    )  # fmt: skip
    assert time.monotonic() - begin < 60
    assert [(o.part, o.result, o.note) for o in outcomes] == [
        ("hangs", "stopped at its limit", "begun"),
        ("dies", "FAILED (-6)", "last words"),
        ("waits", "skipped", "needs dies"),
        ("missing", "skipped", "/nowhere/compute-sanitizer is not there"),
        ("works", "passed", "fine"),
    ]
    (stored,) = (tmp_path / "results").glob("*-gpu_check.json")
    assert [row["part"] for row in json.loads(stored.read_text())["parts"]] == [o.part for o in outcomes]
    assert "fine" in gpu_check.summary(outcomes).splitlines()[-1]


def test_every_part_has_time(tmp_path: Path) -> None:
    """Alone, each part fits into the whole; sanitizers are four."""
    gpu_check = load("tools/gpu_check.py")
    parts = gpu_check.gpu_parts(tmp_path, tmp_path)
    assert all(part.limit_s < gpu_check.TOTAL_S < 480 for part in parts)
    assert {part.name for part in parts} >= {
        "info",
        "twins",
        "tests",
        "kernels",
        "training",
        *gpu_check.SANITIZERS,
    }


def test_an_interrupt_ends_the_part_in_hand_alone(tmp_path: Path) -> None:
    gpu_check = load("tools/gpu_check.py")
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    parts = [
        gpu_check.Part("long", [sys.executable, "-c", code], 60.0),
        gpu_check.Part("next", [sys.executable, "-c", "print('fine')"], 60.0),
    ]
    outcomes = gpu_check.run_all(parts, os.environ, tmp_path, tmp_path)
    assert [(o.part, o.result) for o in outcomes] == [("long", "stopped by Ctrl-C"), ("next", "passed")]


def test_what_a_gpu_answered_becomes_a_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_check = load("tools/gpu_check.py")
    monkeypatch.setattr(gpu_check, "FIXTURES", tmp_path / "fixtures")
    monkeypatch.setattr(gpu_check, "gpu_name", lambda: "nvidia_h100")
    (tmp_path / "twins.npz").write_bytes(b"answers")
    for result, kept in (("FAILED (1)", False), ("passed", True)):
        gpu_check.keep_fixture([gpu_check.Outcome("twins", result, 1.0, "")], tmp_path)
        assert (tmp_path / "fixtures" / "nvidia_h100.npz").exists() == kept


def test_without_a_gpu_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    gpu_check = load("tools/gpu_check.py")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "out")])
    monkeypatch.setattr(gpu_check.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"no {name}")))
    assert gpu_check.main() == gpu_check.NO_GPU
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "gpu_check: no GPU to check here: no NVIDIA driver (no libcuda.so.1); nothing was run"
    )
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_told_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_check = load("tools/gpu_check.py")
    monkeypatch.setattr(gpu_check, "NEEDED", {"build": ("nowhere_a",), "tests": ("json", "nowhere_b")})
    told = "not installed: nowhere_b (for tests)"
    assert gpu_check.missing_tools(builds=False) == [told]
    assert gpu_check.missing_tools(builds=True) == ["not installed: nowhere_a (for build)", told]


def configured(folder: Path, choice: str, home: Path) -> subprocess.CompletedProcess[str]:
    """CMake's answer about this tree with that HOTLOOP_CUDA, where ``home`` is CUDA_HOME."""
    pybind11 = pytest.importorskip("pybind11")
    command = ["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", "-DSKBUILD=ON", "-DSKBUILD_PROJECT_VERSION=0",
               f"-DHOTLOOP_CUDA={choice}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
               f"-DPython_EXECUTABLE={sys.executable}"]  # fmt: skip
    environment = {**os.environ, "CUDA_HOME": str(home)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("ninja")), reason="no CMake or ninja")
@pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="only the repository has it")
def test_compiler_that_is_too_old_is_named(tmp_path: Path) -> None:
    """By default the package is for the CPU then, and holds the reason; asked for, it is an error that says what to do."""
    nvcc = tmp_path / "home" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 11.8, V11.8.89\n")
    nvcc.chmod(0o755)
    reason = f"{nvcc} is of CUDA 11.8; 12.0 or newer is needed"

    usual = configured(tmp_path / "usual", "AUTO", nvcc.parents[1])
    assert usual.returncode == 0, usual.stderr
    assert usual.stdout.count(f"for the CPU alone, without CUDA: {reason}") == 1
    assert reason in (tmp_path / "usual" / "build_info" / "build_info.h").read_text()

    asked = configured(tmp_path / "usual", "ON", nvcc.parents[1])
    words = " ".join(asked.stderr.split())
    assert asked.returncode != 0
    assert "release" not in words and "is of CUDA 11.8" in words and "HOTLOOP_CUDA=FETCH" in words
