# SPDX-License-Identifier: Apache-2.0
"""Several fits at once, in threads: the native loop releases the GIL, so each has a processor of its own.

A fit that runs here is given one thread, and sees a Ctrl-C that the main thread got.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from hotloop import _core
from hotloop.arguments import count
from hotloop.runtime.interrupt import interruptible
from hotloop.runtime.threads import get_num_threads

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
        if stop.is_set():  # another one has failed
            raise CancelledError
        _HERE.stop = stop
        try:
            return task()
        except BaseException:
            stop.set()
            raise
        finally:
            _HERE.stop = None

    with ThreadPoolExecutor(min(n, len(tasks)), "hotloop-fit") as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            errors = [f.exception() for f in futures]  # waits
        except BaseException:  # Ctrl-C
            stop.set()
            raise
    first = next((e for e in errors if e is not None and not isinstance(e, CancelledError)), None)
    if first is not None:
        raise first
    return [f.result() for f in futures]
