# SPDX-License-Identifier: Apache-2.0
"""How many threads.

The default count is what the process may use (affinity, cgroup quota), limited by the environment. Below
a size of step, one thread is faster whatever the machine, so the count is decided for a whole plan from
its cost; a count that the user gives is obeyed. Results never depend on it.
"""

from __future__ import annotations

from hotloop import _core, env
from hotloop.arguments import count
from hotloop.compile.plan import Plan

#: Multiply-adds of a step below which one thread runs it: 100k take one AVX2 core about 5 us, and waking
#: a second thread and joining it at every step of the plan costs about as much.
ONE_THREAD_BELOW = 100_000

#: More than any machine gains from on one model; a larger number is a mistake.
MAX_THREADS = 256

_chosen: int | None = None


def default_threads() -> int:
    """min(affinity, cgroup quota, HOTLOOP_NUM_THREADS, OMP_NUM_THREADS), at least 1."""
    limit = env.thread_limit()
    processors = _core.cpu_count()
    return max(1, processors if limit is None else min(processors, limit))


def check_threads(threads: int | None, where: str) -> int | None:
    """None, or an int from 1 to 256. Raises `TypeError` or `ValueError` for anything else."""
    if threads is None:
        return None
    number = count(where, "threads", threads, low=1)
    if number > MAX_THREADS:
        raise ValueError(f"[{where}] threads must be <= {MAX_THREADS}, got {number}")
    return number


def set_num_threads(n: int | None) -> None:
    """Set the default thread count of this process; None goes back to the machine's.

    Plans too small to gain from threads still use one; `Trainer(threads=...)` is obeyed always.
    Raises `TypeError` or `ValueError` for anything but None or an integer in 1..256.

    >>> import hotloop as hl
    >>> hl.set_num_threads(2)
    >>> hl.get_num_threads()
    2
    >>> hl.set_num_threads(None)
    """
    global _chosen
    _chosen = check_threads(n, "set_num_threads")


def get_num_threads() -> int:
    """The default thread count."""
    return _chosen if _chosen is not None else default_threads()


def chosen_threads() -> int | None:
    """What `set_num_threads` was given last."""
    return _chosen


def threads_for(plan: Plan, explicit: int | None = None) -> int:
    """The number of threads that run a plan: ``explicit`` if given, else by the plan's cost."""
    if explicit is not None:
        return explicit
    multiply_adds = plan.flops.at(plan.max_rows) / 2
    return 1 if multiply_adds < ONE_THREAD_BELOW else get_num_threads()
