# SPDX-License-Identifier: Apache-2.0
"""Products of matrices as training has them, on one thread: beside the rate of multiply-adds in registers, NumPy
(OpenBLAS) and, where it is installed, torch.

    python -m bench.products [--save] [--rounds N]

NT is the forward pass (weights are packed first, which counts), NN the gradient by the input, TN that of the
weight. Processor time, because what else the machine does shall not count; the contestants take turns.
Without products so small that the call from Python is what would be timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hotloop.ops.matmul import PACK_MIN_COLS, PACK_MIN_ROWS, PANEL

from bench._harness import Row, machine, save, table
from hotloop import _core

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
#: form, m, n, k of out (m, n) = A (m, k) B (k, n)
PRODUCTS = [
    ("NN", 1024, 1024, 1024), ("NN", 2048, 2048, 2048),
    ("NT", 128, 512, 784), ("NN", 128, 512, 512), ("NT", 128, 512, 512), ("TN", 512, 784, 128),
    ("NT", 512, 4096, 1024), ("NN", 512, 4096, 1024), ("TN", 4096, 1024, 512), ("TN", 1024, 4096, 512),
    ("NT", 100, 300, 300), ("NN", 4096, 64, 64),
]  # fmt: skip
#: Seconds of one timing: long beside the clock and the call from Python.
SLICE = 0.02

Contestant = tuple[Callable[[], object], np.ndarray]


def operands(form: str, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """A as (m, k), or (k, m) for T; B as (k, n), or (n, k) for T."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if form[0] == "T" else (m, k)).astype(np.float32)
    b = rng.standard_normal((n, k) if form[1] == "T" else (k, n)).astype(np.float32)
    return a, b


def hotloop_call(form: str, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Callable[[], object]:
    """The kernels that lowering chooses for this product."""
    m, n = out.shape
    k = a.size // m
    strides = (1, m) if form[0] == "T" else (k, 1)
    packs = form[1] == "T" or (n >= PACK_MIN_COLS and m >= PACK_MIN_ROWS)
    panels = np.zeros(-(-n // PANEL) * PANEL * k if packs else 0, np.float32)
    pack = {"out": panels, "x": b, "k": k, "n": n}
    pack |= {"stride_k": 1, "stride_n": k} if form[1] == "T" else {"stride_k": n, "stride_n": 1}
    product: dict[str, Any] = dict.fromkeys(("saved", "row_sum", "bias", "gate", "residual"))
    product |= {"out": out, "a": a, "b": panels if packs else b, "m": m, "n": n, "k": k}
    product |= {"a_stride_m": strides[0], "a_stride_k": strides[1], "b_stride_k": n, "b_packed": int(packs)}
    product |= {"out_stride": n, "activation": -1, "dropout": -1}
    product |= {"dropout_row": 0, "accumulate": 0, "p0": 0.0, "p1": 0.0}

    def run() -> None:
        if packs:
            _core.run_kernel("pack_panels", pack, whole=True)
        _core.run_kernel("matmul", product, whole=True)

    return run


def contestants(form: str, a: np.ndarray, b: np.ndarray) -> dict[str, Contestant]:
    """By name a call, and where it leaves its result."""
    left, right = (a.T if form[0] == "T" else a), (b.T if form[1] == "T" else b)
    out, ours = (np.empty((left.shape[0], right.shape[1]), np.float32) for _ in range(2))
    found: dict[str, Contestant] = {
        "hotloop": (hotloop_call(form, a, b, ours), ours),
        "numpy": (lambda: np.matmul(left, right, out=out), out),
    }
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    x, y, z = torch.from_numpy(left), torch.from_numpy(right), torch.empty(out.shape)
    found["torch"] = (lambda: torch.matmul(x, y, out=z), z.numpy())
    return found


def measure(form: str, m: int, n: int, k: int, rounds: int) -> list[Row]:
    """Checks, then times, each contestant. Raises `AssertionError` if one is wrong."""
    a, b = operands(form, m, n, k)
    calls = contestants(form, a, b)
    exact = (a.T if form[0] == "T" else a).astype(np.float64) @ (b.T if form[1] == "T" else b)
    for name, (call, result) in calls.items():
        call()
        np.testing.assert_allclose(result, exact, atol=1e-5 * k, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    peaks: list[float] = []
    for _ in range(rounds):
        peaks.append(_core.fma_peak_gflops(isa="", seconds=0.01))
        for name, (call, _) in calls.items():
            times = 0
            begin = time.thread_time()
            while (spent := time.thread_time() - begin) < SLICE or not times:
                call()
                times += 1
            seconds[name].append(spent / times)
    rate = max(peaks) * 1e9
    flops = 2.0 * m * n * k
    return [
        Row(f"{form} {m}x{n}x{k}", name, tuple(s), {"of peak": flops / min(s) / rate})
        for name, s in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Products of matrices on one thread.")
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-products.json")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):  # read when NumPy is loaded
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bench.products", *sys.argv[1:]],
            {**os.environ, **ONE_THREAD},
        )
    rows = [row for product in PRODUCTS for row in measure(*product, options.rounds)]
    lines = [
        [r.setting, r.contestant, f"{r.best * 1e6:.1f}", f"{r.median * 1e6:.1f}", f"{r.extra['of peak']:.0%}"]
        for r in rows
    ]
    print(table(["product", "contestant", "best us", "median us", "of peak"], lines))
    if options.save:
        print(save("products", rows, machine({"fma_gflops": _core.fma_peak_gflops(isa="", seconds=0.2)})))


if __name__ == "__main__":
    main()
