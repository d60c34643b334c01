# SPDX-License-Identifier: Apache-2.0
"""What ``device="auto"`` means for one run: an estimate for each device, the making of a context included.

Orders of magnitude are enough: where the two are near each other, either is right. A GPU is asked for only if
the CPU is expected to need longer than a context takes to make, so that small runs touch no driver.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotloop import _core
from hotloop.compile.explain import touched_bytes
from hotloop.compile.plan import Plan
from hotloop.runtime import device
from hotloop.runtime.threads import get_num_threads

#: Sustained float32 rate of one thread by its kernels, FLOP/s: about half of what products reach.
_CPU_FLOPS = {"generic": 2e9, "neon": 15e9, "avx2": 40e9, "avx512": 80e9}
#: Bytes a second that a processor's caches and memory give steps that only move data.
_CPU_BYTES = 15e9
#: Of a present-day GPU whose particulars are not known before it is opened.
_GPU_FLOPS, _GPU_BYTES, _UPLOAD_BYTES = 8e12, 6e11, 8e9
#: Seconds of a kernel behind another in a graph, and of making a context.
_GPU_STEP_S, _CONTEXT_S = 2.5e-6, 0.6


@dataclass(frozen=True)
class Choice:
    """The device of a run, and why."""

    kind: device.Kind
    reason: str


def is_over_soon(parameters: int, rows: int) -> bool:
    """Whether a run that reads so many ``rows`` in all is over long before a GPU is ready; without its plan."""
    flops = 6 * parameters * rows  # two each of forward, of gradients by inputs and by parameters
    return flops < _CONTEXT_S / 4 * _CPU_FLOPS["generic"]


def choose(
    plan: Plan, *, batches: int, batch_size: int, data_bytes: int, threads: int | None = None
) -> Choice:
    """Of the CPU and a GPU the one expected to end sooner: ``batches`` steps in all, each of ``plan``."""
    flops, moved = plan.flops.at(batch_size), sum(touched_bytes(plan, step) for step in plan.steps)
    threads = threads or get_num_threads()
    rate = _CPU_FLOPS.get(_core.best_isa(), _CPU_FLOPS["generic"])
    cpu = batches * (flops / rate + moved / _CPU_BYTES) / threads
    if cpu < _CONTEXT_S:
        return Choice("cpu", f"an estimated {_seconds(cpu)} of work is over before a GPU is ready")
    reason = device.why_not("cuda")
    if reason is not None:
        return Choice("cpu", reason)
    start = 0.0 if device.is_open("cuda") else _CONTEXT_S
    step = len(plan.steps) * _GPU_STEP_S + flops / _GPU_FLOPS + moved / _GPU_BYTES
    gpu = start + data_bytes / _UPLOAD_BYTES + batches * step
    return Choice(
        "cuda" if gpu < cpu else "cpu", f"an estimated {_seconds(cpu)} on the CPU, {_seconds(gpu)} on the GPU"
    )


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 100 else f"{value:.0f} s"
