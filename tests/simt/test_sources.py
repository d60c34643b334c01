# SPDX-License-Identifier: Apache-2.0
"""Kernels use CUDA through one header only, or the emulator would not see what they do."""

from __future__ import annotations

import re
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# Launch syntax, storage qualifiers, assembly and intrinsics; __CUDACC__ and __restrict__ are compilers' own.
CUDA = re.compile(
    r"<<<|>>>\s*\(|\basm\b|__(?!CUDACC__|CUDA_ARCH__|restrict__|attribute__|builtin_|FILE__|LINE__)\w+"
)
ALLOWED = {CSRC / "cuda" / "portable_nvcc.h", CSRC / "core" / "host_device.h"}


def _kernel_sources() -> list[Path]:
    kernels = [*CSRC.glob("kernels/*_cuda.cu"), *CSRC.glob("kernels/*_cuda.h"), *CSRC.glob("cuda/*.h")]
    return sorted(set(kernels) - ALLOWED)


def test_kernels_hold_no_cuda_of_their_own() -> None:
    sources = _kernel_sources()
    assert len(sources) > 5, "the sources of kernels have moved"
    found = []
    for path in sources:
        code = re.sub(r"//.*|/\*.*?\*/", "", path.read_text(encoding="utf-8"))
        found += [f"{path.name}: {m.group()}" for m in CUDA.finditer(code)]
    assert not found


def test_the_pattern_finds_what_it_is_for() -> None:
    for line in (
        "k<<<1, 32>>>(x)",
        "__shared__ float a[2]",
        "__syncthreads();",
        'asm volatile("bar;")',
        "__global__ void k()",
    ):
        assert CUDA.search(line), line
