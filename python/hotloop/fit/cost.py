# SPDX-License-Identifier: Apache-2.0
"""What a run will cost, before it is run: counted from the plan, and timed on a copy of the memory.

Time is measured, not modelled: steps of the very plan on the very data, gathered in a shuffled order, with
the thread choice of a real run. The learning rate is 0 and the memory a copy, so nothing is learned.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hotloop.compile import explain
from hotloop.compile.explain import touched_bytes
from hotloop.compile.memory import buffer_bytes
from hotloop.data import lazy

if TYPE_CHECKING:
    from hotloop.compile.plan import Plan
    from hotloop.engine.native import Data, NativeEngine
    from hotloop.runtime.executable import Executable
    from hotloop.runtime.session import Session

#: Before anything counts: a step on the team and one alone are tried six times each before the faster is
#: kept, and caches, pages and branch predictors learn meanwhile.
_WARM_STEPS, _TRIES = 16, 6
_WARM_S = 0.25
#: Then the mean of so many seconds, or of three stretches where steps take longer, within a limit. The mean,
#: because a run on a busy machine is interrupted as this is.
_MEASURED_S = 0.1
_STRETCHES, _MEASURED_AT_MOST_S = 3, 0.75
#: What the loop over epochs takes in Python for each: settings, metrics, history.
_EPOCH_S = 10e-6


@dataclass(frozen=True)
class CostPlan:
    """The cost of training on a data set.

    rows, batch_size, steps_per_epoch
    parameters         trained numbers
    flops_per_step     floating-point operations of a full batch
    flops_per_epoch    of all rows
    bytes_per_step     read and written by a full batch, caches aside: the rows gathered, then every operand
                       of every step once
    memory_bytes       native buffers of the model: parameters, gradients, moments, state, counters; sums of
                       gradients and a moving average if the trainer asks for them
    program_bytes      native buffers of the training plan: activations, gradients by activations, scratch,
                       constants, totals
    snapshot_bytes     the copy of parameters, moments, state and counters that a run holds for its rollback;
                       0 with restore_best=False
    peak_bytes         these three together, to the byte. Not in it: the data, the history, the plan as
                       Python objects, an evaluation plan if there is validation data; a process has some
                       10 MB of those next to its data
    seconds_per_epoch  of training, gathering and keeping the epoch for a rollback; without validation,
                       callbacks, what a run does once (checks, compilation), and reading data in blocks
    threads            how many may run it
    steps              the compiled steps, as text
    """

    rows: int
    batch_size: int
    steps_per_epoch: int
    parameters: int
    flops_per_step: int
    flops_per_epoch: int
    bytes_per_step: int
    memory_bytes: int
    program_bytes: int
    snapshot_bytes: int
    seconds_per_epoch: float
    threads: int
    steps: str

    @property
    def peak_bytes(self) -> int:
        return self.memory_bytes + self.program_bytes + self.snapshot_bytes

    def __str__(self) -> str:
        return (
            f"{self.parameters} parameters, {self.rows} rows, "
            f"{self.steps_per_epoch} steps of {self.batch_size} an epoch on {self.threads} threads\n"
            f"{self.flops_per_step / 1e6:.3g} MFLOP and {self.bytes_per_step / 2**20:.3g} MiB a step, "
            f"{self.flops_per_epoch / 1e9:.3g} GFLOP and {self.seconds_per_epoch:.3g} s an epoch, "
            f"{self.peak_bytes / 2**20:.3g} MiB of memory\n{self.steps}"
        )


def cost_plan(engine: NativeEngine, data: Data, batch_size: int, *, keeps_epochs: bool = True) -> CostPlan:
    """The cost of an epoch over ``data``; neither the model nor its optimiser's state changes.

    ``keeps_epochs``: whether the run takes snapshots. After compiling, the answer takes an eighth of a second,
    and at most one, or the time of two steps and a few copies of the model; meanwhile there is a second copy
    of the model's memory.
    """
    session = engine.session
    exe = session.program(engine.graph, engine.train_spec(data, batch_size))
    plan = exe.plan
    timed = _at_hand(data, batch_size)
    source_bytes = sum(array.nbytes for array in timed.arrays.values()) // max(timed.rows, 1) * batch_size
    input_bytes = sum(buffer_bytes(plan, buffer, batch_size) for _, buffer in plan.inputs)
    return CostPlan(
        **counted(engine, exe, data.rows, batch_size, keeps_epochs=keeps_epochs),
        bytes_per_step=source_bytes + input_bytes + _touched(plan, engine.accumulate),
        seconds_per_epoch=_Stopwatch(engine, exe, timed, batch_size).seconds_per_epoch()
        * (data.rows / timed.rows)
        + _between_epochs(session, keeps_epochs, averages=engine.ema is not None),
        steps=explain(plan),
    )


def _at_hand(data: Data, batch_size: int) -> Data:
    """The data, or some rows of what is read in blocks; how fast it is read is not known."""
    data = data.sample
    if not any(map(lazy.is_lazy, data.arrays.values())):
        return data
    rows = lazy.rows_at_once(data.arrays, batch_size)
    return replace(data, arrays={name: array[:rows] for name, array in data.arrays.items()})


def _touched(plan: Plan, accumulate: int) -> int:
    """Bytes of all operands of a step, with the share of the update that falls to each of its batches."""
    steps = [touched_bytes(plan, step) for step in plan.steps]
    return sum(steps[: plan.update]) + sum(steps[plan.update :]) // accumulate


def counted(
    engine: NativeEngine, exe: Executable, rows: int, batch_size: int, *, keeps_epochs: bool
) -> dict[str, Any]:
    """The part of a `CostPlan` that takes microseconds: plain numbers, by its names."""
    plan, memory = exe.plan, engine.session.memory
    full, rest = divmod(rows, batch_size)
    return {
        "rows": rows,
        "batch_size": batch_size,
        "steps_per_epoch": full + bool(rest),
        "parameters": sum(e.size for e in memory.layout.entries),
        "flops_per_step": plan.flops.at(batch_size),
        "flops_per_epoch": full * plan.flops.at(batch_size) + (plan.flops.at(rest) if rest else 0),
        "memory_bytes": memory.native.nbytes,
        "program_bytes": exe.program.nbytes,
        "snapshot_bytes": memory.native.snapshot_nbytes if keeps_epochs else 0,
        "threads": exe.threads,
    }


def process_peak_bytes() -> int | None:
    """The most memory that this process has had so far, of everything in it; None where that is not told."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class _Stopwatch:
    """Times stretches of epochs: a copy of the model's memory, the data itself, a learning rate of 0."""

    def __init__(self, engine: NativeEngine, exe: Executable, data: Data, batch_size: int) -> None:
        session = engine.session
        self.copy = session.memory.allocate()
        self.copy.reserve(accumulated=engine.accumulate > 1, ema=engine.ema is not None)
        self.copy.copy_from(session.memory.native)
        self.exe, self.engine = exe, engine
        self.source = exe.source(data.arrays)
        self.params = session.params_table(exe.plan, engine.graph)
        self.rows, self.batch_size = data.rows, batch_size
        self.epoch = 0
        self._bind()

    def seconds_per_epoch(self) -> float:
        spent, steps = 0.0, 0
        while steps < _WARM_STEPS and spent < _WARM_S:
            seconds, done = self._stretch(_WARM_S - spent, _WARM_STEPS - steps)
            spent, steps = spent + seconds, steps + done
        batches = -1
        if steps < 2 * _TRIES:
            # Steps too long for both to be tried in time gain from a team: with it a new program begins.
            self._bind()
            batches = _TRIES // _STRETCHES
        spent, rows, stretches = 0.0, 0, 0
        while spent < _MEASURED_S or (stretches < _STRETCHES and spent < _MEASURED_AT_MOST_S):
            seconds, done = self._stretch(_MEASURED_S, batches)
            spent, stretches = spent + seconds, stretches + 1
            rows += min(done * self.batch_size, self.rows)  # the last batch of an epoch may be partial
        return spent / rows * self.rows

    def _bind(self) -> None:
        """A new program, which has tried nothing yet, bound as a run binds it."""
        self.bound = self.exe.on(self.copy).bind(
            self.source, batch_size=self.batch_size, shuffle=True, seed=self.engine.session.seed, run=0,
            accumulate=self.engine.accumulate,
        )  # fmt: skip

    def _stretch(self, limit_s: float, batches: int = -1) -> tuple[float, int]:
        """Runs an epoch of its own order until one of the limits; (seconds, steps)."""
        self.epoch += 1
        begin = time.perf_counter()
        steps, _ = self.bound.run(self.epoch, self.params, None, limit_s, 0, batches)
        return time.perf_counter() - begin, steps


def _between_epochs(session: Session, keeps_epochs: bool, *, averages: bool) -> float:
    """Seconds from the end of an epoch to the begin of the next: show the average, is all finite, keep it,
    write it down."""
    memory = session.memory
    kept = memory.snapshot() if keeps_epochs else None
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        memory.is_finite()
        if kept is not None:
            memory.snapshot(kept)
        if averages:  # an even number of times, so that nothing changes
            memory.native.exchange_ema()
            memory.native.exchange_ema()
        seconds.append(time.perf_counter() - begin)
    return min(seconds) + _EPOCH_S
