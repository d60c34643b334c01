# SPDX-License-Identifier: Apache-2.0
"""Every environment variable that hotloop reads, on one page.

HOTLOOP_ISA          generic | avx2 | avx512, on ARM generic | neon: the kernels to use instead of the best
HOTLOOP_NUM_THREADS  1, 2, ...              upper limit of the default thread count
OMP_NUM_THREADS      1, 2, ...              the same, for users of other libraries and for joblib's workers

Each is read when it is needed, never at import, so that a test or a notebook may still change it.
"""

from __future__ import annotations

import os

ISA = "HOTLOOP_ISA"
NUM_THREADS = "HOTLOOP_NUM_THREADS"
OMP_NUM_THREADS = "OMP_NUM_THREADS"


def isa() -> str:
    """The asked-for instruction set, or "" for the best one. The native side checks the name."""
    return os.environ.get(ISA, "").strip().lower()


def thread_limit() -> int | None:
    """The smaller of the two thread variables; None if neither is set.

    Raises `ValueError` for a HOTLOOP_NUM_THREADS that is not a positive integer. OMP_NUM_THREADS is not
    ours: of a nested list such as "4,2" the first number counts, and what cannot be read is ignored.
    """
    limits = []
    own = os.environ.get(NUM_THREADS, "").strip()
    if own:
        if not own.isdecimal() or int(own) < 1:
            raise ValueError(f"[env] {NUM_THREADS} must be a positive integer, got {own!r}; unset it")
        limits.append(int(own))
    omp = os.environ.get(OMP_NUM_THREADS, "").split(",")[0].strip()
    if omp.isdecimal() and int(omp) >= 1:
        limits.append(int(omp))
    return min(limits, default=None)
