# SPDX-License-Identifier: Apache-2.0
"""The emulator finds the mistakes it is for: kernels with one mistake each, in every build and mode that must show it.

The programs are `simt_mutants_plain`, `_race` and `_asan` of the CMake option HOTLOOP_SIMT; HOTLOOP_SIMT_BUILD names
their folder.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

BUILD = os.environ.get("HOTLOOP_SIMT_BUILD")
pytestmark = pytest.mark.skipif(
    BUILD is None, reason="HOTLOOP_SIMT_BUILD does not name a build of the emulator"
)

BUILDS = ("plain", "race", "asan")
MODES = ("forward", "reversed", "random=1", "random=2", "eager", "deferred", "nopoison")
RIGHT, FAULT, WRONG = 0, 3, 4

RIGHT_CASES = (
    "product", "histogram", "mirrored", "row_sums", "exchange_halves", "bytes", "short_sum", "total", "smooth", "tile",
    "graph", "round", "release",
)  # fmt: skip

# Mistake -> builds in which every mode must show it, as "build", or one mode, as "build mode"; and a piece of the
# report where there is one.
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no_barrier_before_use": (("plain forward", "plain reversed", "race", "asan forward"), "race in block"),
    "no_barrier_after_use": (("plain forward", "plain reversed", "race", "asan forward"), "race in block"),
    "divergent_barrier": (("plain", "race", "asan"), "tiles.cc:"),
    "shared_off_by_one": (("plain", "race", "asan"), "past the end of this shared array"),
    "read_off_by_one": (("asan",), ""),
    "write_off_by_one": (("plain", "race", "asan"), "past its end"),
    "not_cleared": (("plain forward", "race forward", "asan forward"), ""),
    "too_much_shared": (("plain", "race", "asan"), "allowed 232448"),
    "too_many_threads": (("plain", "race", "asan"), "allowed 1 to 1024 threads"),
    "no_wait": (("plain forward", "plain reversed", "race forward"), "copies asynchronously"),
    "waits_for_too_few": (("plain forward", "plain reversed", "race forward"), "copies asynchronously"),
    "no_barrier_after_wait": (("plain forward", "plain reversed", "race forward"), "nothing orders the two"),
    "overwrites_too_early": (("plain eager", "plain forward", "race"), "nothing orders the two"),
    "misaligned_copy": (("plain", "race", "asan"), "copy_async at copies.cc:"),
    "mask_without_self": (("plain", "race", "asan"), "the mask does not name the lane that calls"),
    "mask_of_missing": (("plain", "race", "asan"), ""),
    "too_few_steps": (("plain", "race", "asan"), ""),
    "shuffle_in_branch": (("plain", "race", "asan"), "different operations"),
    "misaligned_load": (("plain", "race", "asan"), "load4 at warps.cc:"),
    "no_warp_barrier": (("plain forward", "plain reversed", "race"), "race in block"),
    "no_fence": (("race",), "another block's thread"),
    "fence_too_early": (("race",), "another block's thread"),
    "no_counter_reset": (("plain", "race", "asan"), ""),
    "no_barrier_before_ticket": (("race",), "into ticket"),
    "reads_neighbour": (("plain reversed", "race"), "another block's thread"),
    "misaligned_rows": (("plain", "race", "asan"), "ldmatrix_x4 at matrices.cc:"),
    "part_of_warp": (("plain", "race", "asan"), "needs all 32 lanes"),
    "not_transposed": (("plain", "race", "asan"), ""),
    "unordered_launches": (("plain random=1", "race"), "another launch's thread"),
    "host_reused_early": (("plain deferred", "race deferred", "asan deferred"), ""),
    "host_read_early": (("plain deferred", "race deferred", "asan deferred"), ""),
    "reads_released": (("asan",), ""),
}


def _program(build: str) -> str:
    return str(Path(BUILD or "") / f"simt_mutants_{build}")


@cache
def _names() -> tuple[str, ...]:
    return tuple(
        subprocess.run([_program("plain")], check=True, capture_output=True, text=True).stdout.split()
    )


def _run(build: str, name: str, mode: str) -> tuple[int, str]:
    """Exit status and everything printed. A fault leaves stacks behind, and what they own: no leak of ours."""
    done = subprocess.run(
        [_program(build), name, mode], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _caught(build: str, name: str, mode: str) -> bool:
    status, text = _run(build, name, mode)
    if build == "asan" and status not in (RIGHT, FAULT, WRONG):
        return "ERROR: AddressSanitizer" in text or "runtime error" in text
    assert status in (RIGHT, FAULT, WRONG), f"{name} in {build}, {mode}: status {status}\n{text}"
    return status != RIGHT


def test_every_mistake_has_a_line_here() -> None:
    assert sorted(_names()) == sorted((*RIGHT_CASES, *MISTAKES))


@pytest.mark.parametrize("build", BUILDS)
def test_kernels_without_a_mistake_pass_in_every_mode(build: str) -> None:
    for name in RIGHT_CASES:
        for mode in MODES:
            status, text = _run(build, name, mode)
            assert (status, text.strip()) == (RIGHT, ""), f"{name} in {build}, {mode}: {text}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_shows_where_it_must(name: str) -> None:
    where, report = MISTAKES[name]
    texts = []
    for place in where:
        build, _, one = place.partition(" ")
        for mode in [one] if one else MODES:
            assert _caught(build, name, mode), f"{name} passes in {build}, {mode}"
            texts.append(_run(build, name, mode)[1])
    assert any(report in text for text in texts), f"no report says {report!r}:\n{texts[0]}"


def test_all_mistakes_are_caught() -> None:
    """The count: each of them by at least one build in the first mode that a test run has."""
    first = ("forward", "random=1", "deferred")
    caught = [n for n in MISTAKES if any(_caught(b, n, m) for b in BUILDS for m in first)]
    assert len(caught) == len(MISTAKES) == 32
