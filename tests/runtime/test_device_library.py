# SPDX-License-Identifier: Apache-2.0
"""The CUDA library beside drivers that are missing, broken, old or refusing: nothing but it may fail, and its
reason is clear. Each in a process of its own, in which the loader finds that libcuda.so.1 first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hotloop
from hotloop import _core

LIBRARY = Path(hotloop.__file__).with_name("_cuda.so")
needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="hotloop was built without its CUDA part")
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler for a false driver")

#: What a driver answers before there is a device: the two questions that the runtime asks first, the table of
#: functions by name, and one refusal for everything else.
DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return REFUSAL; }
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
static int refuse(void) { return REFUSAL ? REFUSAL : 3; }
int cuGetProcAddress(const char* name, void** found, int version, unsigned long long flags) {
  *found = (void*)refuse;
  if (!strcmp(name, "cuInit")) *found = (void*)cuInit;
  if (!strcmp(name, "cuDriverGetVersion")) *found = (void*)cuDriverGetVersion;
  if (!strncmp(name, "cuGetProcAddress", 16)) *found = (void*)cuGetProcAddress;
  return 0;
}
int cuGetProcAddress_v2(const char* name, void** found, int version, unsigned long long flags, int* status) {
  if (status) *status = 0;
  return cuGetProcAddress(name, found, version, flags);
}
"""

WORK = """
import json
import numpy as np
import hotloop as hl
try:
    hl.Trainer(hl.nn.Linear(2, 1), "mse", device="cuda")
    refused = ""
except hl.DeviceError as error:
    refused = str(error)
x = np.arange(8.0, dtype=np.float32).reshape(4, 2)
trainer = hl.Trainer(hl.nn.Linear(2, 1), "mse", progress=False)
losses = trainer.fit(x, x.sum(axis=1), epochs=2, batch_size=4).history["loss"]
hl.show_config()
print(json.dumps({
    "cuda": [[d.available, d.detail] for d in hl.devices() if d.kind == "cuda"], "refused": refused,
    "trained": len(losses),
}))
"""


def compiled(folder: Path, source: str, *options: str) -> None:
    subprocess.run(
        ["gcc", "-shared", "-fPIC", *options, "-x", "c", "-", "-o", str(folder / "libcuda.so.1")],
        input=source, text=True, check=True,
    )  # fmt: skip


def with_driver(folder: Path) -> dict[str, Any]:
    """What hotloop says and does where ``folder``'s libcuda.so.1 is the driver."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    found = subprocess.run(
        [sys.executable, "-c", WORK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return answer


def expect(answer: dict[str, Any], words: str) -> None:
    ((available, detail),) = answer["cuda"]
    assert not available
    assert words in detail
    assert words in answer["refused"] and "device='cpu' works" in answer["refused"]
    assert answer["trained"] == 2


@needs_library
@pytest.mark.parametrize("content", [b"", b"this is no library\n"], ids=["empty", "text"])
def test_file_that_is_no_library(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(content)
    expect(with_driver(tmp_path), "no NVIDIA driver was found")


@needs_library
@needs_compiler
@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("", (), "no NVIDIA driver was found"),
        ("int cuInit(unsigned flags) { return 100; }", (), "no NVIDIA driver was found"),
        (DRIVER, ("-DREFUSAL=100", "-DVERSION=13000"), "there is no NVIDIA GPU"),
        (DRIVER, ("-DREFUSAL=0", "-DVERSION=9020"), "too old: it knows CUDA 9.2"),
        (DRIVER, ("-DREFUSAL=802", "-DVERSION=13000"), "cudaErrorSystemNotReady"),
    ],
    ids=["without a symbol", "with one symbol", "without a device", "of long ago", "not ready"],
)
def test_false_driver(tmp_path: Path, source: str, options: tuple[str, ...], words: str) -> None:
    compiled(tmp_path, source, *options)
    expect(with_driver(tmp_path), words)


def test_build_says_what_it_holds() -> None:
    """Either architectures, or why there is none; and the library is there exactly if it says so."""
    info = _core.build_info()
    assert set(info) == {"cuda", "cuda_reason"}
    assert (info["cuda"] == "") != (info["cuda_reason"] == "")
    if info["cuda"]:
        assert all(name.startswith("sm_") for name in info["cuda"].split(","))


@pytest.mark.skipif(LIBRARY.exists(), reason="hotloop was built with its CUDA part")
def test_without_the_library_the_reason_is_named() -> None:
    (listed,) = [device for device in hotloop.devices() if device.kind == "cuda"]
    assert not listed.available and "has no CUDA part" in listed.detail


@needs_library
def test_library_needs_no_driver_to_load() -> None:
    text = LIBRARY.read_bytes()
    assert b"hotloop_device_api" in text
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("no readelf")
    needed = subprocess.run([readelf, "-dW", str(LIBRARY)], check=True, capture_output=True, text=True).stdout
    assert "libcuda" not in needed and "NEEDED" in needed
