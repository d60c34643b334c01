# SPDX-License-Identifier: Apache-2.0
"""Does a slightly wider network take much longer? python -m bench.cliffs [--save] [--threads N|auto]

Two families of networks, every width from 8 to 80 and every eighth with its neighbours up to 512. Between
two neighbouring widths the time of a step may grow by 1.1 times the growth of the FLOPs, widths rounded up
to 16. More is a suspect; suspects are measured again, in turns, and what stays too slow is a cliff.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench._harness import RESULTS, Row, machine, save, settle, table
from hotloop.benchmarks.chart import INK, STYLE
from hotloop.benchmarks.harness import measure_limits
from hotloop.benchmarks.networks import Network
from hotloop.benchmarks.run_hotloop import HotloopRunner

ALLOWED = 1.1
VECTOR = 16
WIDTHS = sorted({*range(8, 81), *(w for c in range(80, 513, 8) for w in (c - 1, c, c + 1) if w <= 512)})
FAMILIES: dict[str, Callable[[int], Network]] = {
    "10-w-w-10, batch 128": lambda w: Network((10, w, w, 10), batch=128, steps=4),
    "64-w-10, batch 32": lambda w: Network((64, w, 10), batch=32, steps=16),
}
ROUNDS, AGAIN, TRIES = 7, 25, 4
#: Of one timed run; the checks of `fit` are some hundredths of it, and equal for neighbours.
RUN_S = 0.005
#: Networks that exist at once: neighbours are measured within a tenth of a second, and memory stays small.
WINDOW = 16


@dataclass(frozen=True)
class Growth:
    """Between two neighbouring widths: the time, and what is allowed."""

    low: int
    high: int
    time: float
    allowed: float

    @property
    def excess(self) -> float:
        return self.time / self.allowed


def rounded_flops(network: Network) -> float:
    """The FLOPs of the network with every width rounded up to the vector."""
    sizes = tuple(-(-size // VECTOR) * VECTOR for size in network.sizes)
    return Network(sizes, network.batch, network.steps).flops_per_step


def allowed_growth(family: str, low: int, high: int) -> float:
    small, large = (rounded_flops(FAMILIES[family](width)) for width in (low, high))
    return ALLOWED * large / small


class Contestant:
    """One network, ready to be timed."""

    def __init__(self, network: Network, threads: int | None) -> None:
        self.runner = HotloopRunner(network, threads)
        self.steps = network.steps
        # one thread computes all the while: processor time, which a busy machine does not change as much
        self.clock = time.process_time if threads == 1 else time.perf_counter
        self.epochs = 1
        self.seconds_per_step()  # compiles
        self.epochs = max(1, round(RUN_S / (self.seconds_per_step() * self.steps)))

    def seconds_per_step(self) -> float:
        begin = self.clock()
        self.runner.run(self.epochs, shuffle=True)
        return (self.clock() - begin) / (self.epochs * self.steps)


def timed_in_turns(family: str, widths: Sequence[int], threads: int | None, rounds: int) -> list[list[float]]:
    """Seconds per step of each width, one per round; the direction of the turns alternates."""
    contestants = [Contestant(FAMILIES[family](width), threads) for width in widths]
    settle()  # the data was made with NumPy's BLAS, whose threads spin for a while
    found: list[list[float]] = [[] for _ in widths]
    for index in range(rounds):
        turns = list(zip(contestants, found, strict=True))
        for contestant, seconds in turns if index % 2 == 0 else reversed(turns):
            seconds.append(contestant.seconds_per_step())
    return found


def growth(times: Sequence[float], others: Sequence[float]) -> float:
    """How much slower the second is: the smaller of the ratio of medians and of minima, because what the
    machine does beside us raises one of them now and then, and a cliff both always."""
    return min(statistics.median(others) / statistics.median(times), min(others) / min(times))


def measured(family: str, threads: int | None) -> tuple[dict[int, list[float]], list[Growth]]:
    """Seconds per step by width, and the growth between neighbours; suspects have been measured again."""
    found: dict[int, list[float]] = {}
    growths = []
    for begin in range(0, len(WIDTHS) - 1, WINDOW):
        widths = WIDTHS[begin : begin + WINDOW + 1]  # the last of a window is the first of the next
        times = dict(zip(widths, timed_in_turns(family, widths, threads, ROUNDS), strict=True))
        found |= times
        for low, high in itertools.pairwise(widths):
            allowed = allowed_growth(family, low, high)
            now = Growth(low, high, growth(times[low], times[high]), allowed)
            for _ in range(TRIES):
                if now.excess <= 1:
                    break
                again = timed_in_turns(family, (low, high), threads, AGAIN)
                now = Growth(low, high, min(now.time, growth(*again)), allowed)
            growths.append(now)
    return found, growths


def draw(series: dict[str, tuple[dict[int, list[float]], list[Growth]]], path: Path) -> None:
    """Best time over width, cliffs marked, in the colours of the other charts."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ticks = [8, 16, 32, 64, 128, 256, 512]
    names = (
        "text.color",
        "axes.labelcolor",
        "axes.titlecolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
    )
    ink: dict[str, Any] = dict.fromkeys(names, INK)
    with matplotlib.rc_context({**ink, "svg.hashsalt": "cliffs"}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for axes, (family, (times, growths)) in zip(panels, series.items(), strict=True):
            best = {width: min(seconds) * 1e6 for width, seconds in sorted(times.items())}
            axes.plot(list(best), list(best.values()), ".-", color=STYLE["hotloop"][0], ms=3, lw=1)
            cliffs = [g.high for g in growths if g.excess > 1]
            axes.plot(cliffs, [best[w] for w in cliffs], "o", color=INK, fillstyle="none", ms=9)
            axes.set(title=f"{family}: {len(cliffs)} cliffs", xlabel="width w", ylabel="us per step")
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xticks([], minor=True)
            axes.grid(color=INK, alpha=0.35, lw=0.6)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-cliffs.json and .svg")
    parser.add_argument("--threads", default="1", help="a number, or auto; 1 by default, the steadiest")
    arguments = parser.parse_args()
    threads = None if arguments.threads == "auto" else int(arguments.threads)
    series = {family: measured(family, threads) for family in FAMILIES}
    rows, lines = [], []
    for family, (times, growths) in series.items():
        grown = {g.high: g for g in growths}
        for width, seconds in sorted(times.items()):
            g = grown.get(width)
            extra = {} if g is None else {"growth": round(g.time, 3), "allowed": round(g.allowed, 3)}
            rows.append(Row(family, str(width), tuple(round(s, 9) for s in seconds), extra))
        worst = sorted(growths, key=lambda g: g.excess, reverse=True)
        shown = [g for g in worst if g.excess > 1] or worst[:3]
        for g in shown:
            verdict = "CLIFF" if g.excess > 1 else "ok"
            lines.append([family, f"{g.low} -> {g.high}", f"{g.time:.3f}", f"{g.allowed:.3f}", verdict])
    print(table(["network", "width", "time grows", "allowed", ""], lines))
    if arguments.save:
        path = save("cliffs", rows, machine({**asdict(measure_limits()), "threads": arguments.threads}))
        draw(series, RESULTS / f"{path.stem}.svg")
        print(f"saved {path} and its picture")


if __name__ == "__main__":
    main()
