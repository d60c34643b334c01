# SPDX-License-Identifier: Apache-2.0
"""Several fits at once, in threads: the native loop releases the GIL, so each has a processor of its own.

A fit that runs here is given one thread, and sees a Ctrl-C that the main thread got.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from hotloop import _core
from hotloop.arguments import count
from hotloop.interrupt import interruptible
from hotloop.threads import get_num_threads

T = TypeVar("T")


class _Here(threading.local):
    stop: Any = None  # the flag of the runner whose worker this thread is


_HERE = _Here()


def in_worker() -> bool:
    """Whether this thread is one of a `run_all`, which has given the other processors to other fits."""
    return _HERE.stop is not None


@contextmanager
def stop_flag() -> Iterator[Any]:
    """The flag that ends a run: the runner's in its workers, elsewhere one that Ctrl-C sets."""
    if _HERE.stop is not None:
        yield _HERE.stop
        return
    with interruptible() as stop:
        yield stop


def run_all(tasks: Sequence[Callable[[], T]], workers: int | None = None) -> list[T]:
    """The results of all tasks, in their order, from so many threads (None: one per processor).

    Tasks begin in order. If one raises, those that run are stopped as by Ctrl-C, the others never begin, and
    the first error is raised; so it is with Ctrl-C itself. Raises `ValueError` or `TypeError` for bad workers.

    >>> run_all([lambda: 1, lambda: 2], workers=2)
    [1, 2]
    """
    n = get_num_threads() if workers is None else count("run_all", "workers", workers, low=1)
    stop = _core.StopFlag()
    if n == 1 or len(tasks) <= 1 or in_worker():
        return [task() for task in tasks]

    def work(task: Callable[[], T]) -> T:
        _HERE.stop = stop
        try:
            return task()
        finally:
            _HERE.stop = None

    with ThreadPoolExecutor(min(n, len(tasks)), "hotloop-fit") as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((f for f in futures if f.done() and f.exception() is not None), None)
            return [f.result() for f in futures] if failed is None else [failed.result()]
        finally:
            if not all(f.done() for f in futures):
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
