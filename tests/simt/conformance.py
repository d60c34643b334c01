# SPDX-License-Identifier: Apache-2.0
"""Every instruction of csrc/cuda/portable.h on random words: what a library answers, and what it should.

    python -m tests.simt.conformance --library PATH --save FILE

runs the cases of conformance.cu, compares the answers with those worked out here from the PTX manual, prints a line
for each and writes inputs and answers to FILE (.npz). A file from a real GPU belongs into fixtures/, where the tests
hold the emulator to it. The emulator's library holds the cases; a device's own does not, and nvcc makes one that does,
for the GPU of this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
LANES = 32
FIXTURES = Path(__file__).with_name("fixtures")
SEED = 20_251_121
# Draws of each case: every lane sees other words each time.
REPEATS = 16


@dataclass(frozen=True)
class Case:
    number: int
    name: str
    n_in: int
    n_out: int  # words of a lane


class Library:
    """A library with the cases of conformance.cu."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._lib.hotloop_conformance_case.restype = ctypes.c_char_p
        self._lib.hotloop_conformance_run.restype = ctypes.c_char_p
        self.cases = [self._case(i) for i in range(self._lib.hotloop_conformance_count())]

    def _case(self, number: int) -> Case:
        n_in, n_out = ctypes.c_int(), ctypes.c_int()
        name: bytes = self._lib.hotloop_conformance_case(number, ctypes.byref(n_in), ctypes.byref(n_out))
        return Case(number, name.decode(), n_in.value, n_out.value)

    def run(self, case: Case, words: Words) -> Words:
        """Answers (repeats, 32, n_out) to words (repeats, 32, n_in)."""
        answers = np.zeros((len(words), LANES, case.n_out), np.uint32)
        for given, answer in zip(words, answers, strict=True):
            given = np.ascontiguousarray(given)
            pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (given, answer)]
            wrong: bytes | None = self._lib.hotloop_conformance_run(case.number, *pointers)
            if wrong is not None:
                raise RuntimeError(f"[conformance] {case.name}: {wrong.decode()}")
        return answers


def with_cases(path: Path, folder: Path) -> Path:
    """The library at ``path`` if the cases are in it, else one that nvcc puts into ``folder``."""
    if hasattr(ctypes.CDLL(str(path), mode=os.RTLD_LAZY), "hotloop_conformance_count"):
        return path
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    nvcc = shutil.which("nvcc") or str(home / "bin" / "nvcc")
    root, made = Path(__file__).resolve().parents[2], folder / "conformance_cuda.so"
    command = [nvcc, "-std=c++20", "-O3", "-arch=native", "-shared", "-cudart", "static", "-Xcompiler", "-fPIC",
               f"-I{root / 'csrc'}", f"-I{root / 'tests'}", str(root / "tests/simt/conformance.cu"), "-o", str(made)]  # fmt: skip
    subprocess.run(command, check=True)
    return made


def draw(case: Case) -> Words:
    """Words (repeats, 32, n_in) for a case: any bits, but numbers of ordinary size where it multiplies."""
    rng = np.random.default_rng([SEED, *case.name.encode()])
    words = rng.integers(0, 2**32, (REPEATS, LANES, case.n_in), np.uint32)
    if case.name.startswith("mma_"):
        words = rng.standard_normal(words.shape, np.float32).view(np.uint32)
        if case.name == "mma_bf16":
            halves = rng.standard_normal((*words.shape, 2), np.float32).view(np.uint32) >> 16
            words[..., 4:] = (halves[..., 0] | halves[..., 1] << 16)[..., 4:]
    elif case.name == "votes":
        words[: REPEATS // 2] |= 1  # no zero in half of them
        words[REPEATS // 2 :, 7] = 0
    elif case.name == "roundings":
        special = np.array([0, -0.0, 1, np.inf, -np.inf, 1e-40, 3.4e38, 65504.0], np.float32).view(np.uint32)
        words[0, : len(special), 0] = special
        # Halfway between two neighbours of either format, above an even and an odd one.
        words[1, :4, 0] = [0x3F800000 + 0x1000, 0x3F802000 + 0x1000, 0x3F808000, 0x3F818000]
        words[1, :4, 1] = [0xBF800000 + 0x1000, 0xBF802000 + 0x1000, 0xBF808000, 0xBF818000]
        # A NaN has many bit patterns; which one comes out is the hardware's affair.
        words[np.isnan(words.view(np.float32))] = np.float32(np.nan).view(np.uint32)
    return words


def _shuffles(w: Words) -> Words:
    lane = np.arange(LANES)
    v, chosen = w[:, 0], w[:, 1] % LANES
    down = [np.where(lane + d < LANES, lane + d, lane) for d in (1, 5, 16)]
    sources = [chosen, *(lane ^ d for d in (1, 2, 4, 8, 16, 21)), *down]
    return np.stack([v[s] for s in sources], 1)


def _shuffles_wide(w: Words) -> Words:
    lane = np.arange(LANES)
    return np.concatenate([w[lane ^ 9], w[np.where(lane + 3 < LANES, lane + 3, lane)]], 1)


def _ballot(bits: NDArray[np.bool_]) -> int:
    return int(sum(1 << int(i) for i in np.flatnonzero(bits)))


def _masks(w: Words) -> Words:
    lane, odd = np.arange(LANES), w[:, 0] % 2 == 1
    votes = [_ballot(odd & (lane % 2 == parity)) for parity in (0, 1)]
    return np.stack([w[lane ^ 2, 0], np.array(votes, np.uint32)[lane % 2]], 1)


def _votes(w: Words) -> Words:
    v = w[:, 0]
    answer = [_ballot(v % 2 == 1), int((v == 0).any()), int((v & 0xFFFF).sum())]
    return np.tile(np.array(answer, np.uint32), (LANES, 1))


def _wide_access(w: Words) -> Words:
    return w[:, [3, 2, 1, 0, 5, 4, 7, 6, 2, 3, 0, 1]]


def _copies(w: Words) -> Words:
    flat = w.reshape(-1)
    planes = [flat[: 4 * LANES].reshape(LANES, 4), flat[4 * LANES : 6 * LANES].reshape(LANES, 2)]
    planes.append(flat[6 * LANES : 7 * LANES].reshape(LANES, 1))
    copied: Words = np.concatenate(planes, 1) * (flat[7 * LANES :] % 2)[:, None]
    return copied[np.arange(LANES) ^ 1]


def _matrix_loads(w: Words) -> Words:
    rows = np.ascontiguousarray(w).view(np.uint16).reshape(4, 8, 8)  # matrix, row, column

    def fragments(matrices: NDArray[np.uint16]) -> Words:
        # Lane i holds elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4: the rows, eight bytes a quarter, in order.
        return np.ascontiguousarray(matrices).view(np.uint32).reshape(len(matrices), LANES).T

    turned = rows.transpose(0, 2, 1)
    return np.concatenate([fragments(m) for m in (rows, turned, rows[:2], turned[:2])], 1)


def _operands(w: Words, depth: int) -> tuple[NDArray[np.float64], ...]:
    """d (16, 8), a (16, depth), b (depth, 8) from a warp's fragments."""
    g, t = np.divmod(np.arange(LANES), 4)
    d, a, b = np.zeros((16, 8)), np.zeros((16, depth)), np.zeros((depth, 8))
    numbers = w.view(np.float32).astype(np.float64)
    for e in range(4):
        d[g + e // 2 * 8, 2 * t + e % 2] = numbers[:, e]
    if depth == 16:
        halves = np.stack([w[:, 4:] << 16, w[:, 4:] & np.uint32(0xFFFF0000)], 2).view(np.float32)
        for e in range(2):
            for i in range(4):
                a[g + i % 2 * 8, 2 * t + e + i // 2 * 8] = halves[:, i, e]
            for i in range(2):
                b[2 * t + e + i * 8, g] = halves[:, 4 + i, e]
    else:
        kept = (w[:, 4:] & np.uint32(0xFFFFE000)).view(np.float32)
        for i in range(4):
            a[g + i % 2 * 8, t + i // 2 * 4] = kept[:, i]
        for i in range(2):
            b[t + i * 4, g] = kept[:, 4 + i]
    return d, a, b


def _product(w: Words, depth: int) -> Words:
    d, a, b = _operands(w, depth)
    g, t = np.divmod(np.arange(LANES), 4)
    found = (d + a @ b).astype(np.float32)
    return np.stack([found[g + e // 2 * 8, 2 * t + e % 2] for e in range(4)], 1).view(np.uint32)


def _to_tf32(w: Words) -> Words:
    finite = np.isfinite(w.view(np.float32))
    rounded = (w + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    special = np.where(np.isnan(w.view(np.float32)), np.uint32(0x7FFFFFFF), w)
    return np.where(finite, rounded, special).astype(np.uint32)


def _to_bf16(w: Words) -> Words:
    rounded = (w.astype(np.uint64) + 0x7FFF + (w >> 16 & 1)) >> 16
    return np.where(np.isnan(w.view(np.float32)), 0x7FFF, rounded).astype(np.uint32)


def _roundings(w: Words) -> Words:
    return np.stack([_to_tf32(w[:, 0]), _to_tf32(w[:, 1]), _to_bf16(w[:, 0]) | _to_bf16(w[:, 1]) << 16], 1)


EXPECTED: dict[str, Callable[[Words], Words]] = {
    "shuffles": _shuffles,
    "shuffles_wide": _shuffles_wide,
    "masks": _masks,
    "votes": _votes,
    "wide_access": _wide_access,
    "copies": _copies,
    "matrix_loads": _matrix_loads,
    "mma_bf16": lambda w: _product(w, 16),
    "mma_tf32": lambda w: _product(w, 8),
    "roundings": _roundings,
}


def expected(name: str, words: Words) -> Words:
    """Answers (repeats, 32, n_out) that the PTX manual asks for."""
    return np.stack([EXPECTED[name](given) for given in words])


def differs(name: str, words: Words, a: Words, b: Words) -> str:
    """Empty, or how two answers to the same words differ. Products may: a tensor core truncates where it pleases."""
    if not name.startswith("mma_"):
        wrong = np.argwhere(a != b)
        return "" if len(wrong) == 0 else f"{len(wrong)} words differ, the first at {wrong[0].tolist()}"
    depth = 16 if name == "mma_bf16" else 8
    g, t = np.divmod(np.arange(LANES), 4)
    worst = 0.0
    for given, x, y in zip(words, a.view(np.float32), b.view(np.float32), strict=True):
        d, left, right = _operands(given, depth)
        size = np.abs(d) + np.abs(left) @ np.abs(right)
        sizes = np.stack([size[g + e // 2 * 8, 2 * t + e % 2] for e in range(4)], 1)
        worst = max(worst, float((np.abs(x.astype(np.float64) - y) / sizes).max()))
    # Sums of 17 terms, of which each may lose the last bit of the largest: 17 * 2^-24, with room for a bit more.
    return "" if worst < 32 * 2.0**-24 else f"the largest difference is {worst:.2e} of the sum of magnitudes"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = Library(with_cases(options.library, Path(folder)))  # stays open when its file is gone
    record: dict[str, Words] = {}
    failed = 0
    for case in library.cases:
        words = draw(case)
        answers = library.run(case, words)
        record[f"{case.name}_in"], record[f"{case.name}_out"] = words, answers
        wrong = differs(case.name, words, answers, expected(case.name, words))
        failed += bool(wrong)
        print(f"{case.name:16} {wrong or 'as the manual says'}", flush=True)
    if options.save:
        np.savez_compressed(options.save, **record)  # type: ignore[arg-type]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
