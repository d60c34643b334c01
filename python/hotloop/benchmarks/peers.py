# SPDX-License-Identifier: Apache-2.0
"""Kernels beside their peers: the same work in turns, one thread count at a time, checked first.

A sample is as many calls as fill two milliseconds. Samples of all contestants take turns in an order that moves
on, so that a busy moment hits everybody; the ratio is that of the medians.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hotloop.benchmarks.harness import Limits, Row, busy, settle, table
from hotloop.benchmarks.peer_works import Call, Work
from hotloop.runtime.threads import set_num_threads

ROUNDS, SAMPLE_S = 15, 0.002
US = "hotloop"


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Everybody has so many threads."""
    with contextlib.ExitStack() as stack:
        try:
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(count))
        except ImportError:
            pass
        try:
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        except ImportError:
            pass
        set_num_threads(count)
        stack.callback(set_num_threads, None)
        yield


def check(work: Work, calls: Mapping[str, Call]) -> None:
    """Everybody's result is ours, as far as float32 goes. Raises `AssertionError`."""
    mine = np.array(calls[US]())
    scale = max(1.0, float(np.abs(mine).max(initial=0.0)))
    for name, call in calls.items():
        result = np.asarray(call())
        np.testing.assert_allclose(result, mine, rtol=1e-3, atol=1e-4 * scale, err_msg=f"{work.name}: {name}")


def measure(work: Work, count: int, *, compiled: bool = False) -> list[Row]:
    """A row for every contestant, timed on ``count`` threads. ``compiled``: torch's compiler takes part."""
    with threads(count):
        calls = {n: c for n, c in work.make().items() if compiled or n != "torch compiled"}
        check(work, calls)
        repeats = {name: _repeats(call) for name, call in calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in calls}
        names = list(calls)
        for turn in range(ROUNDS):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if count > 1:
                    settle()
                samples[name].append(_sample(calls[name], repeats[name]))
    extra = {"flops": work.flops, "bytes": work.n_bytes, "threads": count, "target": dict(work.target or {})}
    return [Row(work.name, name, tuple(seconds), extra) for name, seconds in samples.items()]


def measure_busy(work: Work) -> list[Row]:
    """Ours on one thread and on two, in turns, while another process keeps the second processor busy."""
    counts = {"1 thread": 1, "2 threads": 2}
    samples: dict[str, list[float]] = {name: [] for name in counts}
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, usable[:2])
    try:
        with busy(usable[1]):
            call = work.make()[US]
            repeats = _repeats(call)
            for _ in range(ROUNDS):
                for name, count in counts.items():
                    set_num_threads(count)
                    call()  # a team that slept, or is new
                    samples[name].append(_sample(call, repeats))
    finally:
        set_num_threads(None)
        os.sched_setaffinity(0, usable)
    setting = f"{work.name}, second processor busy"
    return [
        Row(setting, name, tuple(seconds), {"threads": counts[name]}) for name, seconds in samples.items()
    ]


def busy_report(rows: Sequence[Row]) -> str:
    """A line per work: what two threads take beside a busy process, over what one takes."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.setting, {})[row.contestant] = row
    lines = [
        [
            name,
            f"{pair['1 thread'].median * 1e6:.1f}",
            f"{pair['2 threads'].median / pair['1 thread'].median:.2f}",
        ]
        for name, pair in found.items()
    ]
    return table(["work", "1 thread us", "2 threads over it"], lines)


def _repeats(call: Callable[[], object]) -> int:
    _sample(call, 1)
    return max(1, round(SAMPLE_S / max(_sample(call, 3), 1e-9)))


def _sample(call: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def share_of_limit(row: Mapping[str, Any], limits: Limits) -> float:
    """What a row reaches of what its threads could: of the multiply-adds, or of one stream through memory."""
    extra = row["extra"]
    if extra["flops"]:
        return float(extra["flops"] / row["median"] * 1e-9 / (limits.fma_gflops * extra["threads"]))
    return float(extra["bytes"] / row["median"] * 1e-9 / limits.stream_gbs)


def report(rows: Sequence[Mapping[str, Any]], limits: Limits) -> str:
    """A line per work and thread count: our time, its share of the limit, and each peer's time over ours."""
    groups: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["setting"], row["extra"]["threads"]), {})[row["contestant"]] = row
    peers = sorted({row["contestant"] for row in rows} - {US})
    lines = []
    for (name, count), found in groups.items():
        ours = found[US]
        ratios = [f"{found[p]['median'] / ours['median']:.2f}" if p in found else "" for p in peers]
        wanted = ", ".join(f"{peer} {ratio:g}" for peer, ratio in ours["extra"]["target"].items())
        lines.append(
            [
                name,
                str(count),
                f"{ours['median'] * 1e6:.1f}",
                f"{100 * share_of_limit(ours, limits):.0f} %",
                *ratios,
                wanted,
            ]
        )
    return table(["work", "threads", "median us", "of limit", *(f"{p} x" for p in peers), "wanted"], lines)
