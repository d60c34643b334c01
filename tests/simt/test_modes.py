# SPDX-License-Identifier: Apache-2.0
"""The emulator's modes: words that are understood, words that are not, and faults as the table's users see them."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hotloop

SIMT = Path(hotloop.__file__).with_name("_simt.so")
pytestmark = pytest.mark.skipif(not SIMT.exists(), reason="the emulator is not built (HOTLOOP_SIMT)")

MISUSE = 6  # DeviceStatus of csrc/cuda/api.h
API = Path(__file__).parents[2] / "csrc" / "cuda" / "api.h"
VERSION = int(re.findall(r"kDeviceApiVersion = (\d+)", API.read_text(encoding="utf-8"))[0])


class Table(ctypes.Structure):
    """The first fields of DeviceApi."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("n_kernels", ctypes.c_uint32),
        ("backend", ctypes.c_char_p),
        ("last_error", ctypes.CFUNCTYPE(ctypes.c_char_p)),
    )


def _set_mode(words: str) -> tuple[int, str]:
    library = ctypes.CDLL(str(SIMT))
    library.hotloop_device_api.restype = ctypes.POINTER(Table)
    status = int(library.hotloop_simt_mode(words.encode()))
    table = library.hotloop_device_api(VERSION).contents
    assert table.backend == b"simt"
    return status, table.last_error().decode()


@pytest.fixture(autouse=True)
def _ordinary_afterwards() -> object:
    yield
    _set_mode(os.environ.get("HOTLOOP_SIMT", ""))


@pytest.mark.parametrize(
    "words",
    ["", "forward", "reversed late", "random=0", "random=18446744073709551615", "eager deferred nopoison"],
)
def test_words_that_are_understood(words: str) -> None:
    assert _set_mode(words)[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        "backward",
        "random",
        "random=",
        "random=-1",
        "random=x",
        "forward later",
        "random=99999999999999999999",
    ],
)
def test_words_that_are_not(words: str) -> None:
    status, text = _set_mode(words)
    assert status == MISUSE
    assert f"'{words.split()[-1]}'" in text and "allowed forward, reversed, random=SEED" in text


RUN = """
import numpy as np
from tests.gpu.kernel_harness import call_device
y = np.zeros(5, np.float32)
call_device("simt", "fill", {"out": y, "n": 5, "value": 3.0})
print(y.tolist())
"""


def _run(mode: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOTLOOP_SIMT": mode, "PYTHONPATH": str(Path(hotloop.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip


def test_the_environment_chooses() -> None:
    done = _run("random=3 eager deferred")
    assert done.stdout.strip() == "[3.0, 3.0, 3.0, 3.0, 3.0]", done.stderr


def test_a_bad_environment_is_an_error_of_the_first_launch() -> None:
    done = _run("sideways")
    assert done.returncode == 1
    assert (
        "DeviceError" in done.stderr
        and "[HOTLOOP_SIMT] a word of the emulator's mode, got 'sideways'" in done.stderr
    )
