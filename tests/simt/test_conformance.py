# SPDX-License-Identifier: Apache-2.0
"""The emulator's twins of the GPU's instructions: beside the PTX manual, and beside what GPUs have answered."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import hotloop
from tests.simt.conformance import EXPECTED, FIXTURES, Case, Library, differs, draw, expected

SIMT = Path(hotloop.__file__).with_name("_simt.so")
RECORDED = sorted(FIXTURES.glob("*.npz"))
needs_emulator = pytest.mark.skipif(not SIMT.exists(), reason="the emulator is not built (HOTLOOP_SIMT)")


@cache
def _library() -> Library:
    return Library(SIMT)


def _case(name: str) -> Case:
    return next(case for case in _library().cases if case.name == name)


@needs_emulator
def test_every_case_has_an_answer_worked_out() -> None:
    assert sorted(case.name for case in _library().cases) == sorted(EXPECTED)


@needs_emulator
@pytest.mark.parametrize("name", EXPECTED)
def test_twin_like_the_manual(name: str) -> None:
    case = _case(name)
    words = draw(case)
    answers = _library().run(case, words)
    assert not differs(name, words, answers, expected(name, words))


@needs_emulator
@pytest.mark.parametrize("name", EXPECTED)
def test_a_wrong_answer_is_told(name: str) -> None:
    words = draw(_case(name))
    answers = expected(name, words)
    wrong = answers.copy()
    wrong[-1, 5, 0] ^= np.uint32(1 << 20)
    assert differs(name, words, answers, wrong)


@needs_emulator
@pytest.mark.skipif(not RECORDED, reason="no GPU has answered yet: tests/simt/fixtures holds no .npz")
@pytest.mark.parametrize("path", RECORDED, ids=[p.stem for p in RECORDED])
def test_twin_like_a_gpu(path: Path) -> None:
    with np.load(path) as recorded:
        for name in EXPECTED:
            words, answered = recorded[f"{name}_in"], recorded[f"{name}_out"]
            assert not differs(name, words, _library().run(_case(name), words), answered), name
