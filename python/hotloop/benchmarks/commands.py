# SPDX-License-Identifier: Apache-2.0
"""The commands ``hotloop bench train`` and ``hotloop bench kernels``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hotloop import _core
from hotloop.benchmarks import chart, contestants, harness, kernels, published, training_report
from hotloop.benchmarks.kernel_settings import SETTINGS
from hotloop.benchmarks.networks import selected
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


def time_kernels(*, save: str | None = None) -> int:
    """Time every kernel on one core beside the limits of this machine, each checked first.

    Parameters
    ----------
    save
        A JSON file for all rounds.
    """
    limits = harness.measure_limits()
    rows = [kernels.measure(kernel, limits) for kernel in sorted(SETTINGS)]
    print(kernels.report(rows), end="\n\n")
    _finish("kernels", rows, harness.machine(asdict(limits)), save)
    return 0


def save_training(result: dict[str, Any], path: Path) -> list[Path]:
    """Writes the JSON and, with matplotlib, the chart beside it; what was written."""
    harness.write(path, result)
    try:
        chart.draw(result, path.with_suffix(".svg"))
    except ImportError:
        return [path]
    return [path, path.with_suffix(".svg")]


def _finish(name: str, rows: list[harness.Row], stamp: dict[str, Any], save: str | None) -> None:
    print(", ".join(f"{key}: {value}" for key, value in stamp.items()))
    if save is None:
        return
    result = harness.record(name, rows, stamp)
    if name == "train":
        print(f"saved {', '.join(map(str, save_training(result, Path(save))))}")
    else:
        harness.write(Path(save), result)
        print(f"saved {save}")


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
