# SPDX-License-Identifier: Apache-2.0
"""The commands ``hotloop bench train`` and ``hotloop bench kernels``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hotloop import _core
from hotloop.benchmarks import (
    chart,
    contestants,
    harness,
    kernels,
    peer_works,
    published,
    roofline,
    training_report,
)
from hotloop.benchmarks import peers as beside
from hotloop.benchmarks.kernel_settings import SETTINGS
from hotloop.benchmarks.networks import selected
from hotloop.benchmarks.peer_works import Work
from hotloop.benchmarks.training import CurveError, Options, Training
from hotloop.errors import HotloopError


def train(
    *, quick: bool = False, networks: str | None = None, peers: str | None = None,
    threads: str | None = None, save: str | None = None,
) -> int:  # fmt: skip
    """Time whole training runs beside torch, JAX, scikit-learn and the floor of this machine.

    The floor is the arithmetic of the matrix products at the rate of multiply-adds measured in the same run.
    Before anything is timed, all must have the same loss curves. Libraries that are not installed are left
    out. Takes some minutes on a quiet machine; every contestant works alone while it is timed.

    Parameters
    ----------
    quick
        Three short rounds, without torch.compile: a minute or so.
    networks
        Some of the networks only, such as 64-128-10,784-30-10.
    peers
        Some of the peers only, of torch,jax,sklearn; none measures hotloop alone.
    threads
        Thread counts, such as 1,2; default: 1, 2, 4, 8 and 16 as far as there are processors.
    save
        A JSON file for all rounds; the chart goes beside it as SVG if matplotlib is installed.
    """
    chosen = selected(networks)
    counts = _counts(threads)
    options = Options.quick(_peers(peers), counts) if quick else Options(_peers(peers), counts)
    rows: list[harness.Row] = []
    say = _progress if sys.stderr.isatty() else _silent
    try:
        with Training(options, say) as training:
            for network in chosen:
                rows += training.measure(network)
                say("")
                print(training_report.details(_plain(rows), network.name), end="\n\n", flush=True)
            if networks is None:
                rows += training.measure(published.MATRIX_EXPONENTIAL, peers=False)
            peaks, left_out = training.peaks, training.left_out
    except CurveError as error:
        raise HotloopError(str(error)) from None
    say("")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(training_report.summary(_plain(rows)), end="\n\n")
    if networks is None:
        print(training_report.orientation(_plain(rows)), end="\n\n")
    stamp = harness.machine({"fma_gflops": peaks})
    _finish("train", rows, stamp, save)
    return 0


def time_kernels(
    *, only: str | None = None, peers: bool = True, threads: str | None = None, busy: bool = False,
    compiled: bool = False, save: str | None = None,
) -> int:  # fmt: skip
    """Time every kernel beside the limits of this machine, then work that others do as well beside them.

    The limits (multiply-adds of a core, stream through main memory) are measured in the same run. Each kernel is
    compared with its float64 reference first, each peer's result with ours. Peers: NumPy, torch, BLIS, oneDNN and
    libxsmm, as far as they are installed; they take turns with us, and the ratios are of medians.

    Parameters
    ----------
    only
        Works beside peers whose names begin so, such as "matmul,adamw".
    peers
        Measure the works beside peers.
    threads
        Thread counts of these, such as 1,2; default: 1 and all processors, up to 16.
    busy
        Measure also what two threads take while another process keeps the second processor busy.
    compiled
        Let torch's compiler take part where it may help.
    save
        A JSON file for all rounds; a picture goes beside it as SVG if matplotlib is installed.
    """
    limits = harness.measure_limits()
    rows: list[harness.Row] = []
    if only is None:
        rows += [kernels.measure(kernel, limits) for kernel in sorted(SETTINGS)]
        print(kernels.report(rows), end="\n\n")
    if peers:
        rows += _beside_peers(only, _counts(threads), limits, compiled=compiled)
    if busy:
        rows += _beside_busy(only)
    _finish("kernels", rows, harness.machine(asdict(limits)), save)
    return 0


def _works(only: str | None) -> list[Work]:
    starts = ("",) if only is None else tuple(name.strip() for name in only.split(","))
    found = [work for work in peer_works.works() if work.name.startswith(starts)]
    if not found:
        names = ", ".join(work.name for work in peer_works.works())
        raise ValueError(f"[bench] --only {only!r} is the beginning of no work; there are: {names}")
    return found


def _beside_peers(
    only: str | None, counts: Sequence[int], limits: harness.Limits, *, compiled: bool
) -> list[harness.Row]:
    rows: list[harness.Row] = []
    say = _progress if sys.stderr.isatty() else _silent
    for count in counts:
        for work in _works(only):
            say(f"{work.name}, {count} threads")
            rows += beside.measure(work, count, compiled=compiled)
    say("")
    print(beside.report(_plain(rows), limits), end="\n\n")
    return rows


def _beside_busy(only: str | None) -> list[harness.Row]:
    if _core.cpu_count() < 2:
        raise ValueError("[bench] --busy needs two processors, this process may use one")
    rows = [row for work in _works(only) for row in beside.measure_busy(work)]
    print(beside.busy_report(rows), end="\n\n")
    return rows


def save_result(result: dict[str, Any], path: Path) -> list[Path]:
    """Writes the JSON and, with matplotlib, the picture beside it; what was written."""
    harness.write(path, result)
    draw = chart.draw if result["name"] == "train" else roofline.draw
    try:
        draw(result, path.with_suffix(".svg"))
    except ImportError:
        return [path]
    return [path, path.with_suffix(".svg")]


def _finish(name: str, rows: list[harness.Row], stamp: dict[str, Any], save: str | None) -> None:
    print(", ".join(f"{key}: {value}" for key, value in stamp.items()))
    if save is None:
        return
    result = harness.record(name, rows, stamp)
    print(f"saved {', '.join(map(str, save_result(result, Path(save))))}")


def _plain(rows: list[harness.Row]) -> list[dict[str, Any]]:
    return list(harness.record("", rows, {})["rows"])


def _peers(names: str | None) -> tuple[str, ...]:
    if names is None:
        return contestants.PEERS
    wanted = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    unknown = [name for name in wanted if name not in contestants.PEERS]
    if unknown:
        raise ValueError(
            f"[bench] no peer {unknown[0]!r}; allowed: {', '.join(contestants.PEERS)}, or none; write them "
            "with commas between"
        )
    return tuple(wanted)


def _counts(text: str | None) -> tuple[int, ...]:
    processors = _core.cpu_count()
    if text is None:
        return contestants.thread_counts(processors)
    parts = text.split(",")
    if not all(part.strip().isdigit() and 1 <= int(part) <= processors for part in parts):
        raise ValueError(f"[bench] --threads takes counts such as 1,2 up to {processors}, got {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _progress(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass
