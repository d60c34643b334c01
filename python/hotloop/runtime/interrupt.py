# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a run is in native code: a flag for the loop to see, and a way out for who presses twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hotloop import _core


@contextmanager
def interruptible() -> Iterator[Any]:
    """A stop flag that the first Ctrl-C sets; the second raises KeyboardInterrupt.

    Only in the main thread, which is the one that gets signals, and only in place of Python's own handler:
    a handler that somebody installed knows better than we do.
    """
    stop = _core.StopFlag()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
