# SPDX-License-Identifier: Apache-2.0
"""Running one kernel on arrays: which threads, and memory for a moment.

A team belongs to one Python thread, because it takes one caller at a time; so does the scratch memory, which is
kept from call to call, since fresh pages would cost a large product some percent.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Union

import numpy as np

from hotloop import _core
from hotloop.ops import device, device_work
from hotloop.ops.arrays import Array
from hotloop.runtime.threads import get_num_threads

#: Nanoseconds of one thread's work below which it works alone: waking the others takes some 10 us.
ALONE_BELOW_NS = 40_000
#: More scratch than this (elements) is given back after the call.
_KEPT_SCRATCH = 1 << 24

_here = threading.local()


@cache
def kernel(name: str, dtype: str) -> _core.EagerKernel:
    """The kernel of the unit in use; float64 runs in the generic one."""
    return _core.EagerKernel(name, dtype)


@cache
def number_of(name: str) -> int:
    """The place of a kernel in the list."""
    return int(_core.kernel_number(name))


def launch(
    name: str, dtype: Union[np.dtype[Any], str], fields: tuple[Any, ...], work_ns: float, **context: Any
) -> None:
    """Run a kernel; ``fields`` in the order of its schema. ``work_ns`` is a guess of its time on one thread."""
    if isinstance(fields[0], device.View):
        device_work.launch(name, fields, **context)
        return
    kernel(name, dtype if isinstance(dtype, str) else dtype.name)(fields, team_for(work_ns), **context)


def team_for(work_ns: float) -> Any:
    """The team of the calling Python thread, or None where so much work is not worth one."""
    if work_ns < ALONE_BELOW_NS:
        return None
    threads = get_num_threads()
    if threads == 1:
        return None
    team = getattr(_here, "team", None)
    if team is None or team.threads != threads:
        team = _here.team = _core.Team(threads)
    return team


def scratch(elements: int, dtype: np.dtype[Any]) -> Array:
    """Memory for the length of one call, (elements,), aligned to 64 bytes; its content is undefined."""
    if elements > _KEPT_SCRATCH:
        return np.empty(elements, dtype)
    held: Array | None = getattr(_here, "scratch", None)
    need = elements * dtype.itemsize
    if held is None or held.nbytes < need:
        raw = np.empty(need + 64, np.uint8)
        begin = -raw.ctypes.data % 64
        held = _here.scratch = raw[begin : begin + need]
    return held[:need].view(dtype)
