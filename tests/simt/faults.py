# SPDX-License-Identifier: Apache-2.0
"""The emulator's failures on demand and its counts, for tests: see faults.cc."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gpu.kernel_harness import LIBRARIES

#: DeviceStatus of csrc/cuda/api.h.
MEMORY, FAULT = 4, 5
THINGS = ("memory", "pinned", "streams", "events", "graphs")


def _library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(LIBRARIES["simt"]))
    found.hotloop_simt_fail.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int, ctypes.c_int]
    for name in ("hotloop_simt_calls", "hotloop_simt_live"):
        getattr(found, name).argtypes, getattr(found, name).restype = [ctypes.c_char_p], ctypes.c_int64
    return found


@contextmanager
def failing(call: str, status: int, *, after: int = 0, lasts: bool = False) -> Iterator[None]:
    """The call after so many more of that function of the table fails, and if it lasts, all that follow do."""
    library = _library()
    assert library.hotloop_simt_fail(call.encode(), after, status, lasts), call
    try:
        yield
    finally:
        library.hotloop_simt_fail(b"", 0, 0, 0)


def calls(name: str) -> int:
    """Calls of a function of the table so far; of "upload": copies to the device."""
    found = int(_library().hotloop_simt_calls(name.encode()))
    assert found >= 0, name
    return found


def live() -> dict[str, int]:
    """What was made on the device and not given back, once Python's own garbage is gone."""
    gc.collect()
    library = _library()
    found = {thing: int(library.hotloop_simt_live(thing.encode())) for thing in THINGS}
    assert min(found.values()) >= 0, found
    return found
