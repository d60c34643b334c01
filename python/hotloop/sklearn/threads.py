# SPDX-License-Identifier: Apache-2.0
"""How many threads an estimator trains with: as many as its neighbours leave it.

joblib's worker processes say so by OMP_NUM_THREADS, which `get_num_threads` reads. Its worker threads share our
process and its count, so that there each fit takes one.
"""

from __future__ import annotations

import threading

from joblib.parallel import get_active_backend

from hotloop.runtime.parallel import in_worker
from hotloop.runtime.threads import get_num_threads


def threads_of(n_jobs: int | None) -> int | None:
    """Threads for ``n_jobs``: a number is obeyed, -1 are all, -2 all but one; None leaves it to the model's
    cost, but is one in a worker thread of a pool.

    >>> threads_of(3)
    3
    """
    if n_jobs is None:
        return 1 if in_worker() or _in_joblib_thread() else None
    return max(1, get_num_threads() + 1 + int(n_jobs)) if n_jobs < 0 else int(n_jobs)


def _in_joblib_thread() -> bool:
    backend, _ = get_active_backend()
    nested = bool(getattr(backend, "nesting_level", 0))
    return nested and threading.current_thread() is not threading.main_thread()
