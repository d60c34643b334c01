# SPDX-License-Identifier: Apache-2.0
"""Whole training runs of every network: equal loss curves first, then timed rounds in turn.

Within a round every contestant runs once, in an order that moves on by one from round to round, so that a
busy moment of the machine hits all of them alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from hotloop import _core
from hotloop.benchmarks import contestants, harness
from hotloop.benchmarks.contestants import BY_NAME, CONTESTANTS, Entry
from hotloop.benchmarks.harness import Row
from hotloop.benchmarks.networks import Network
from hotloop.benchmarks.pool import Pool, Worker, WorkerError

#: hotloop with scikit-learn's optimiser: a reference for its loss curve, not timed.
ADAM = Entry("hotloop, Adam", 1)
#: Curves agree to this part of the loss. float32 rounding makes a part in 1e7 of a weight; AdamW's division
#: by the root of the second moment enlarges it where gradients nearly vanish: 1e-4 was seen after 32 steps.
#: A missing weight decay shows as 1e-3.
SAME_CURVE = 5e-4
#: scikit-learn adds epsilon to the root before its correction and not after it: 4e-4 was seen.
SAME_CURVE_ADAM = 1e-3
MEGABYTE = 1e6


class CurveError(RuntimeError):
    """A contestant does not learn what the others learn, so its time would say nothing."""


@dataclass(frozen=True)
class Options:
    """``seconds``: of one timed call, many times what a call of `Trainer.fit` costs on top of its epochs (0.8 to 20 ms
    here), as real runs are; ``budget_s``: of a network's rounds, after which three are enough."""

    peers: tuple[str, ...] = contestants.PEERS
    counts: tuple[int, ...] = field(default_factory=lambda: contestants.thread_counts(_core.cpu_count()))
    rounds: int = 6
    seconds: float = 0.3
    budget_s: float = 40.0
    variants: bool = True

    @staticmethod
    def quick(peers: Sequence[str], counts: Sequence[int]) -> Options:
        """Three short rounds, and no second ways to use a library: their compiling alone would take longer."""
        return Options(
            tuple(peers), tuple(counts), rounds=3, seconds=0.1, budget_s=6.0, variants=False
        )  # fmt: skip


@dataclass
class Record:
    """What is known of one entry on one network."""

    entry: Entry
    curve: list[float]
    first_step_s: float
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    base_bytes: int = 0

    def row(self, network: Network, peaks: Mapping[int, float]) -> Row:
        best = min(range(len(self.seconds)), key=self.seconds.__getitem__)
        extra: dict[str, Any] = {
            "threads": "auto" if self.entry.threads is None else self.entry.threads,
            "cpu_s": min(self.cpu_s),
            "first_step_s": self.first_step_s,
            "peak_mb": round(self.peak_bytes / MEGABYTE, 1),
            "base_mb": round(self.base_bytes / MEGABYTE, 1),
            "loss": [self.curve[0], self.curve[-1]],
        }
        # Where hotloop chose, the processor time tells how many threads were at work.
        used = self.entry.threads or round(self.cpu_s[best] / self.seconds[best])
        threads = max((n for n in peaks if n <= used), default=min(peaks))
        extra["floor_s"] = network.flops_per_step / (peaks[threads] * 1e9)
        extra["floor_threads"] = threads
        return Row(network.name, self.entry.contestant, tuple(self.seconds), extra)


class Training:
    """The contestants' processes; `measure` one network after the other.

    Raises `CurveError` if a contestant learns something else; one that fails otherwise is left out, with its
    reason in ``left_out``.
    """

    def __init__(self, options: Options, say: Callable[[str], None] = lambda line: None) -> None:
        self.options = options
        self.say = say
        self.left_out: dict[str, str] = dict.fromkeys(contestants.absent(options.peers), "not installed")
        if not options.variants:
            late = [c.name for c in CONTESTANTS if c.variant and c.family in options.peers]
            self.left_out |= dict.fromkeys(late, "not in a quick run")
        self.peaks = {n: harness.fma_peak(n) for n in options.counts}
        found = contestants.entries(options.peers, options.counts, variants=options.variants)
        if any(BY_NAME[entry.contestant].adam for entry in found):
            found.append(ADAM)
        self.pool = Pool(found)
        self.left_out |= self.pool.failed

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.pool.close()

    def measure(self, network: Network, *, peers: bool = True) -> list[Row]:
        """A row for every contestant that is there; ``peers=False``: hotloop alone."""
        workers = [w for w in self.pool.workers.values() if peers or w.entry.contestant == "hotloop"]
        records = self._prepared(network, workers)
        check_curves(network, list(records.values()))
        timed = {label: r for label, r in records.items() if r.entry != ADAM}
        self._each(timed, network, lambda label: self._ask(label, "calibrate", seconds=self.options.seconds))
        self._rounds(network, timed)
        for label, record in timed.items():
            memory = self._ask(label, "finish")
            record.peak_bytes, record.base_bytes = memory["peak_bytes"], memory["base_bytes"]
        if ADAM.label in records:
            self._ask(ADAM.label, "finish")
        return [record.row(network, self.peaks) for record in timed.values()]

    def _prepared(self, network: Network, workers: Sequence[Worker]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        epochs = curve_epochs(network)
        for worker in workers:
            label = worker.entry.label
            self.say(f"{network.name}: preparing {label}")
            try:
                worker.begin(network)
                answer = worker.ask("prepare", curve_epochs=epochs)
            except WorkerError as error:
                self._leave_out(label, network, str(error))
                continue
            found[label] = Record(worker.entry, answer["curve"], answer["first_step_s"])
        return found

    def _rounds(self, network: Network, records: dict[str, Record]) -> None:
        begin = time.perf_counter()
        for index in range(self.options.rounds):
            if index >= 3 and time.perf_counter() - begin > self.options.budget_s:
                break
            self.say(f"{network.name}: round {index + 1} of {self.options.rounds}")
            labels = list(records)
            turn = index % max(1, len(labels))
            self._each(
                records, network, lambda label: self._one(records[label]), labels[turn:] + labels[:turn]
            )

    def _one(self, record: Record) -> None:
        answer = self._ask(record.entry.label, "round")
        record.seconds.append(answer["seconds"])
        record.cpu_s.append(answer["cpu_s"])

    def _ask(self, label: str, what: str, **details: Any) -> dict[str, Any]:
        return self.pool.workers[label].ask(what, **details)

    def _each(
        self, records: dict[str, Record], network: Network, work: Callable[[str], object],
        labels: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Does something for every contestant; who fails leaves ``records``."""
        for label in list(records) if labels is None else labels:
            try:
                work(label)
            except WorkerError as error:
                del records[label]
                self._leave_out(label, network, str(error))

    def _leave_out(self, label: str, network: Network, reason: str) -> None:
        """Peers may fail; what is measured here may not."""
        if label.startswith("hotloop"):
            raise RuntimeError(f"[bench] {label} failed on {network.name}: {reason}")
        self.left_out[f"{label} ({network.name})"] = reason


def curve_epochs(network: Network) -> int:
    """1 to 3 epochs for the comparison, less for a large network: about 10 GFLOP in all."""
    return min(3, max(1, int(1e10 / (network.flops_per_step * network.steps))))


def check_curves(network: Network, records: Sequence[Record]) -> None:
    """Every curve falls; hotloop's are equal to the bit; all others equal hotloop's within float32.

    scikit-learn is compared with hotloop under Adam. Of two classes it models one output, which is another
    path through the same function: there only the start must agree.
    """
    by_label = {record.entry.label: record.curve for record in records}
    ours = next(r.curve for r in records if r.entry.contestant == "hotloop")
    for record in records:
        label, curve = record.entry.label, record.curve
        expected, tolerance = ours, SAME_CURVE
        if record.entry.contestant == "hotloop":
            tolerance = 0.0
        elif record.entry == ADAM:
            expected = ours[:1]
        elif BY_NAME[record.entry.contestant].adam:
            expected, tolerance = by_label[ADAM.label], SAME_CURVE_ADAM
            if network.loss == "cross_entropy" and network.sizes[-1] == 2:
                expected = expected[:1]
        for epoch, (value, ref) in enumerate(zip(curve, expected, strict=False)):
            if not math.isclose(value, ref, rel_tol=tolerance, abs_tol=0.0):
                raise CurveError(
                    f"[bench] {label} on {network.name}: loss {value:.7g} after {epoch} epochs, got by hotloop "
                    f"{ref:.7g}; allowed: a difference of {tolerance:g} of it"
                )
        if not curve[-1] < curve[0]:
            raise CurveError(f"[bench] {label} on {network.name}: the loss does not fall: {curve}")
